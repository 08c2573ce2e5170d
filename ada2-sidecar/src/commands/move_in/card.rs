//! Which card: pinned by its UUID, because an index may mean another card after the next boot.

use std::{path::PathBuf, time::Duration};

use service::subprocess::with_timeout;

use super::reporter::{MoveError, StepReporter};
use crate::gpu::{self, CardInfo, GpuState};

const STEP: &str = "card";
/// For the driver, which may hang.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(15);

/// What is known before the driver is asked.
#[derive(Debug, Default)]
pub(crate) struct CardSelection {
    /// A flag's index or UUID.
    pub(crate) flag: Option<String>,
    /// The file's.
    pub(crate) file: Option<String>,
    /// Whether a host without a card will do.
    pub(crate) optional: bool,
    pub(crate) library: Option<PathBuf>,
    pub(crate) engine_unit: String,
    pub(crate) engine_pid: Option<u32>,
}

/// The UUID to set; none where there is no card, and none is needed.
pub(crate) fn select(
    selection: &CardSelection,
    reporter: &mut StepReporter,
) -> Result<Option<String>, MoveError> {
    let (library, unit, pid) =
        (selection.library.clone(), selection.engine_unit.clone(), selection.engine_pid);
    let seen = with_timeout(DRIVER_TIMEOUT, move || gpu::cards(library.as_deref(), &unit, pid));
    let cards = match seen {
        None => {
            let message = format!("the NVIDIA driver does not answer within {} s", DRIVER_TIMEOUT.as_secs());
            return Err(MoveError::new(STEP, message, "look at `sudo dmesg`; a reboot may be needed"));
        }
        Some(Err(why)) if selection.optional && is_absent(&why) => {
            reporter.ok(STEP, &format!("{why}; gpu: optional, so that does not matter"));
            return Ok(None);
        }
        Some(Err(why)) => return Err(no_card(&why)),
        Some(Ok(cards)) => cards,
    };
    let (card, why) = select_from(&cards, selection)?;
    reporter.ok(STEP, &format!("{} = {} ({}){why}", card.index, card.uuid, card.name));
    Ok(Some(card.uuid.clone()))
}

/// Whether there is no card, rather than one in trouble, which gates whatever `gpu` says.
fn is_absent(why: &GpuState) -> bool {
    match why {
        GpuState::LibraryUnavailable(_) | GpuState::DriverNotLoaded => true,
        GpuState::NoDevice { found, .. } => found.is_empty(),
        _ => false,
    }
}

fn no_card(why: &GpuState) -> MoveError {
    let fix = match why {
        GpuState::DriverNotLoaded => "`sudo modprobe nvidia`, look at `sudo dmesg`",
        GpuState::VersionMismatch => "reboot: the driver was upgraded",
        GpuState::Lost => "look at `sudo dmesg` for Xid lines, and reboot",
        _ => "`nvidia-smi` must work first",
    };
    if !is_absent(why) {
        return MoveError::new(STEP, why.to_string(), fix);
    }
    MoveError::new(STEP, why.to_string(), format!("{fix}; for a host without an NVIDIA card: --gpu optional"))
}

/// A flag's, a UUID that the file has, the one that the engine uses, the file's index, the first.
fn select_from<'a>(
    cards: &'a [CardInfo],
    selection: &CardSelection,
) -> Result<(&'a CardInfo, String), MoveError> {
    let find = |name: &str| cards.iter().find(|card| card.uuid == name || card.index.to_string() == name);
    let all = || {
        cards.iter().map(|card| format!("{} = {} ({})", card.index, card.uuid, card.name)).collect::<Vec<_>>()
    };
    let requested =
        selection.flag.as_ref().or(selection.file.as_ref().filter(|file| file.starts_with("GPU-")));
    if let Some(name) = requested {
        let missing = || {
            MoveError::new(
                STEP,
                format!("no card {name}: there is {}", all().join(", ")),
                "--gpu-id with one of these",
            )
        };
        return find(name).map(|card| (card, String::new())).ok_or_else(missing);
    }
    let used = cards.iter().filter(|card| card.engine_holds > 0).max_by_key(|card| card.engine_holds);
    if let Some(card) = used {
        let why = if cards.len() > 1 { ", where the engine holds memory" } else { "" };
        return Ok((card, why.to_owned()));
    }
    let card = selection.file.as_deref().and_then(find).or_else(|| find("0")).or_else(|| cards.first());
    let card = card.ok_or_else(|| {
        MoveError::new(STEP, "the driver knows no card", "for a host without one: --gpu optional")
    })?;
    let others = cards.len() > 1;
    let why = if others {
        format!(" of {}: the engine holds memory of none now; --gpu-id names another", cards.len())
    } else {
        String::new()
    };
    Ok((card, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_the_one_that_is_named_else_the_engines() {
        let card = |index: u32, engine_holds| CardInfo {
            index,
            uuid: format!("GPU-{index}"),
            name: "NVIDIA".to_owned(),
            engine_holds,
        };
        let wanted = |flag: Option<&str>, file: Option<&str>| CardSelection {
            flag: flag.map(str::to_owned),
            file: file.map(str::to_owned),
            ..CardSelection::default()
        };
        let (idle, busy) = ([card(0, 0), card(1, 0)], [card(0, 0), card(1, 5)]);
        for (cards, flag, file, expected) in [
            (&busy[..], Some("0"), Some("GPU-1"), "GPU-0"),
            (&busy, Some("GPU-1"), None, "GPU-1"),
            (&busy, None, Some("GPU-0"), "GPU-0"),
            (&busy, None, Some("0"), "GPU-1"),
            (&idle, None, Some("1"), "GPU-1"),
            (&idle, None, None, "GPU-0"),
            (&idle[1..], None, None, "GPU-1"),
        ] {
            assert_eq!(
                select_from(cards, &wanted(flag, file)).unwrap().0.uuid,
                expected,
                "{flag:?} {file:?}"
            );
        }
        let stop = select_from(&idle, &wanted(Some("7"), None)).unwrap_err();
        assert!(
            stop.message.contains("no card 7: there is 0 = GPU-0 (NVIDIA), 1 = GPU-1"),
            "{}",
            stop.message
        );
        assert!(select_from(&[], &wanted(None, None)).is_err());
        assert!(no_card(&GpuState::DriverNotLoaded).fix.contains("--gpu optional"));
        assert!(!no_card(&GpuState::Lost).fix.contains("--gpu optional"), "it would not help");
    }
}
