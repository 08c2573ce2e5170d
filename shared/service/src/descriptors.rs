//! The limit of open files (descriptors) of the process: raised as far as the system allows, and connections bounded below
//! it, so that what a request needs is had before a backend spends time on it.

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// As many as are ever used; of a limit without end no more is taken.
const ENOUGH: u64 = 65_536;
/// What macOS allows where its own limit says "unlimited" (`OPEN_MAX`).
const ALWAYS_ALLOWED: u64 = 10_240;
/// Kept back for listeners, the log, the store, probes and the runtime itself.
const OWN: u64 = 64;
/// A connection, what is asked for it, and a file.
const A_CONNECTION: u64 = 3;
/// Fewer connections are no service.
const FEWEST: usize = 8;

/// Raises the soft limit as far as the hard one allows, and gives what it is then.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < ENOUGH) else { return limit() };
    for wanted in [ENOUGH, ALWAYS_ALLOWED].map(|wanted| wanted.min(maximum.unwrap_or(wanted))) {
        if wanted > current && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok()
        {
            break;
        }
    }
    limit()
}

/// How many files the process may have open.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections there may be, of these that are wanted.
pub fn connections(wanted: usize) -> usize {
    within(limit(), wanted)
}

fn within(limit: u64, wanted: usize) -> usize {
    let room = limit.saturating_sub(OWN) / A_CONNECTION;
    usize::try_from(room).unwrap_or(usize::MAX).max(FEWEST).min(wanted)
}

/// Whether an error of the operating system says that there are no more.
pub fn ran_out(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(is_shortage)
}

pub(super) fn is_shortage(code: i32) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| errno.raw_os_error() == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_below_the_limit() {
        for (limit, connections) in
            [(0, 8), (64, 8), (256, 64), (1024, 320), (10_240, 1024), (65_536, 1024), (u64::MAX, 1024)]
        {
            assert_eq!(within(limit, 1024), connections, "{limit}");
        }
        assert_eq!(within(65_536, 10), 10);
    }

    #[test]
    fn raising_never_lowers() {
        let before = limit();
        assert!(raise() >= before);
    }

    #[test]
    fn a_shortage_is_told_from_other_errors() {
        // EMFILE and ENFILE have the same numbers on Linux and macOS.
        for (code, short) in [(24, true), (23, true), (2, false), (28, false)] {
            assert_eq!(ran_out(&std::io::Error::from_raw_os_error(code)), short, "{code}");
        }
        assert!(!ran_out(&std::io::Error::other("x")));
    }
}
