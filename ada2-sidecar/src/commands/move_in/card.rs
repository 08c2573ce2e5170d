//! Selects the card, and pins it by its UUID: its index may change with the next boot.

use std::{path::PathBuf, time::Duration};

use service::subprocess::with_timeout;

use super::reporter::{MoveError, StepReporter};
use crate::gpu::{self, CardInfo, GpuState};

const STEP: &str = "card";
/// For the driver, which may hang.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(15);

/// What the selection depends on.
#[derive(Debug, Default)]
pub(crate) struct CardSelection {
    /// `--gpu-id`: index or UUID.
    pub(crate) flag: Option<String>,
    /// `gpu_id` of the configuration file.
    pub(crate) file: Option<String>,
    /// Whether the host may lack a card.
    pub(crate) optional: bool,
    pub(crate) library: Option<PathBuf>,
    pub(crate) engine_unit: String,
    pub(crate) engine_pid: Option<u32>,
}

/// The UUID to set; none if there is no card, and none is required.
pub(crate) fn select(
    selection: &CardSelection,
    reporter: &mut StepReporter,
) -> Result<Option<String>, MoveError> {
    let (library, unit, pid) =
        (selection.library.clone(), selection.engine_unit.clone(), selection.engine_pid);
    let result = with_timeout(DRIVER_TIMEOUT, move || gpu::cards(library.as_deref(), &unit, pid));
    let cards = match result {
        None => {
            let message = format!("the NVIDIA driver does not answer within {} s", DRIVER_TIMEOUT.as_secs());
            return Err(MoveError::new(STEP, message, "check `sudo dmesg`; a reboot may be needed"));
        }
        Some(Err(state)) if selection.optional && is_absent(&state) => {
            reporter.ok(STEP, &format!("{state}; gpu: optional, so none is required"));
            return Ok(None);
        }
        Some(Err(state)) => return Err(no_card(&state)),
        Some(Ok(cards)) => cards,
    };
    let (card, reason) = select_from(&cards, selection)?;
    reporter.ok(STEP, &format!("{} = {} ({}){reason}", card.index, card.uuid, card.name));
    Ok(Some(card.uuid.clone()))
}

/// Whether there is no card at all. A faulty one makes the service not ready, even with `gpu: optional`.
fn is_absent(state: &GpuState) -> bool {
    match state {
        GpuState::LibraryUnavailable(_) | GpuState::DriverNotLoaded => true,
        GpuState::NoDevice { found, .. } => found.is_empty(),
        _ => false,
    }
}

fn no_card(state: &GpuState) -> MoveError {
    let fix = match state {
        GpuState::DriverNotLoaded => "`sudo modprobe nvidia`, then check `sudo dmesg`",
        GpuState::VersionMismatch => "reboot: the driver was upgraded",
        GpuState::Lost => "check `sudo dmesg` for Xid lines, then reboot",
        _ => "`nvidia-smi` must work first",
    };
    if !is_absent(state) {
        return MoveError::new(STEP, state.to_string(), fix);
    }
    MoveError::new(
        STEP,
        state.to_string(),
        format!("{fix}; for a host without an NVIDIA card: --gpu optional"),
    )
}

/// In this order: the flag's, the UUID in the file, the one that the engine uses, the index in the file, the first.
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
                format!("no card {name}; found: {}", all().join(", ")),
                "use --gpu-id with one of these",
            )
        };
        return find(name).map(|card| (card, String::new())).ok_or_else(missing);
    }
    let used = cards.iter().filter(|card| card.engine_holds > 0).max_by_key(|card| card.engine_holds);
    if let Some(card) = used {
        let reason = if cards.len() > 1 { ", where the engine holds memory" } else { "" };
        return Ok((card, reason.to_owned()));
    }
    let card = selection.file.as_deref().and_then(find).or_else(|| find("0")).or_else(|| cards.first());
    let card = card.ok_or_else(|| {
        MoveError::new(STEP, "the driver reports no GPU", "for a host without one: --gpu optional")
    })?;
    let others = cards.len() > 1;
    let reason = if others {
        format!(" of {}: the engine holds memory of none now; --gpu-id selects another", cards.len())
    } else {
        String::new()
    };
    Ok((card, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_the_named_one_else_the_engines() {
        let card = |index: u32, engine_holds| CardInfo {
            index,
            uuid: format!("GPU-{index}"),
            name: "NVIDIA".to_owned(),
            engine_holds,
        };
        let selection = |flag: Option<&str>, file: Option<&str>| CardSelection {
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
                select_from(cards, &selection(flag, file)).unwrap().0.uuid,
                expected,
                "{flag:?} {file:?}"
            );
        }
        let error = select_from(&idle, &selection(Some("7"), None)).unwrap_err();
        assert!(
            error.message.contains("no card 7; found: 0 = GPU-0 (NVIDIA), 1 = GPU-1"),
            "{}",
            error.message
        );
        assert!(select_from(&[], &selection(None, None)).is_err());
        assert!(no_card(&GpuState::DriverNotLoaded).fix.contains("--gpu optional"));
        assert!(!no_card(&GpuState::Lost).fix.contains("--gpu optional"), "it would not help");
    }
}
