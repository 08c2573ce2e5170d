//! The limit of file descriptors: raised as far as the system allows. The number of connections stays below it, so that no
//! request runs out of descriptors after a backend has spent time on it.

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// As many as are ever used, even if the hard limit is higher.
const TARGET_LIMIT: u64 = 65_536;
/// `OPEN_MAX`, the limit on macOS if it reports "unlimited".
const MACOS_OPEN_MAX: u64 = 10_240;
/// For listeners, the log, the store, probes and the runtime.
const RESERVED: u64 = 64;
/// The client's connection, one to a backend, and a file.
const PER_CONNECTION: u64 = 3;
const MIN_CONNECTIONS: usize = 8;

/// Raises the soft limit as far as the hard one allows, and returns it.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current.filter(|current| *current < TARGET_LIMIT) else { return limit() };
    for limit in [TARGET_LIMIT, MACOS_OPEN_MAX].map(|limit| limit.min(maximum.unwrap_or(limit))) {
        if limit > current && setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum }).is_ok() {
            break;
        }
    }
    limit()
}

/// How many files the process may open.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number of connections, at most `requested`.
pub fn max_connections(requested: usize) -> usize {
    connections_within(limit(), requested)
}

fn connections_within(limit: u64, requested: usize) -> usize {
    let room = limit.saturating_sub(RESERVED) / PER_CONNECTION;
    usize::try_from(room).unwrap_or(usize::MAX).max(MIN_CONNECTIONS).min(requested)
}

/// Whether this is `EMFILE` or `ENFILE`.
pub fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    error.raw_os_error().is_some_and(is_emfile_or_enfile)
}

pub(super) fn is_emfile_or_enfile(code: i32) -> bool {
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
            assert_eq!(connections_within(limit, 1024), connections, "{limit}");
        }
        assert_eq!(connections_within(65_536, 10), 10);
    }

    #[test]
    fn raising_never_lowers() {
        let before = limit();
        assert!(raise_limit() >= before);
    }

    #[test]
    fn running_out_of_descriptors_is_recognized() {
        // EMFILE and ENFILE have the same numbers on Linux and macOS.
        for (code, short) in [(24, true), (23, true), (2, false), (28, false)] {
            assert_eq!(is_out_of_descriptors(&std::io::Error::from_raw_os_error(code)), short, "{code}");
        }
        assert!(!is_out_of_descriptors(&std::io::Error::other("x")));
    }
}
