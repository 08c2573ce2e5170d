//! Executes the actions of faults and repairs.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use fakes::{
    gpu::{FakeCard, Process, Scenario},
    invokeai::{FakeInvoke, ItemStatus},
};
use wire::health::CheckStatus;

use super::{fault::Action, world::World};

/// MiB of the engine and of another process: of 46068 less than 8192 are free.
const OWN: u64 = 1_000;
const FOREIGN: u64 = 38_000;
/// Linux assigns no such number.
const OTHER_PID: u32 = 4_194_305;

/// Actions that only need a card; returns when it was done.
pub(crate) fn apply_to_card(act: Action, card: &FakeCard) -> Instant {
    match act {
        Action::Machine(change) => card.set(change),
        Action::Card(change) => card.set(|machine| change(&mut machine.gpus[0])),
        Action::Foreign => card.set(|machine| {
            let gpu = &mut machine.gpus[0];
            let process = |pid, mib| Process { pid, used_mib: Some(mib), graphics: false };
            gpu.memory.used = OWN + FOREIGN;
            gpu.processes = vec![process(std::process::id(), OWN), process(OTHER_PID, FOREIGN)];
        }),
        Action::Heal => card.set(|machine| {
            let xids = machine.gpus.pop().map(|gpu| gpu.xids).unwrap_or_default();
            *machine = Scenario::default();
            machine.gpus[0].xids = xids;
        }),
        Action::Xids(codes) => card.set(|machine| codes.iter().for_each(|code| machine.gpus[0].xid(*code))),
        Action::LibraryAway => move_file(card.library(), library_backup(card)),
        Action::LibraryUpgraded => {
            move_file(card.library(), library_backup(card));
            let new = card.library().with_extension("new");
            fs::copy(library_backup(card), &new).expect("the card's directory can be written");
            move_file(new, card.library());
        }
        Action::LibraryBack => move_file(library_backup(card), card.library()),
        _ => unreachable!("not about the card"),
    }
    Instant::now()
}

/// Any action; returns the time from which it counts.
pub(crate) async fn apply(act: Action, world: &mut World) -> Instant {
    match act {
        Action::Acknowledge => {
            fs::write(world.state.join("ack"), "").expect("the state directory can be written");
        }
        Action::Engine(change) => engine(world).script(change),
        Action::EngineStops => engine(world).stop().await,
        Action::EngineStarts => restart(world).await,
        Action::Pause(paused) => engine(world).pause(paused),
        Action::CancelIgnored => abandon_job(world).await,
        Action::CancelObeyed => engine(world).script(|script| {
            script.hold = false;
            script.cancel_tail = Duration::ZERO;
        }),
        Action::Stop => world.sidecar.lifecycle.begin_drain(),
        Action::Start => world.start_sidecar_again().await,
        // The rest is proven by an image, not by time alone.
        Action::Wait => drop(world.request_image_within(Duration::from_mins(1)).await),
        act => return apply_to_card(act, &world.card),
    }
    Instant::now()
}

fn engine(world: &World) -> &FakeInvoke {
    world.engine.as_ref().expect("the row has an engine")
}

/// A real one takes seconds to come up again, in which the sidecar sees that it has stopped.
async fn restart(world: &World) {
    let is_stopped = async || {
        let report = world.readyz().await?;
        let check = report.checks.into_iter().find(|check| check.name == "engine_reachable")?;
        (check.status == CheckStatus::Fail).then_some(())
    };
    if is_stopped().await.is_none() {
        engine(world).stop().await;
        fakes::eventually("the engine has stopped", is_stopped).await;
    }
    engine(world).restart();
}

/// The client disconnects while the engine works on its image, and the engine does not stop.
async fn abandon_job(world: &World) {
    let engine = engine(world);
    engine.script(|script| {
        script.hold = true;
        script.cancel_tail = Duration::from_hours(1);
    });
    tokio::select! {
        _ = world.request_image_within(Duration::from_mins(1)) => {}
        () = engine.until(|items| items.iter().any(|item| item.status == ItemStatus::InProgress)) => {}
    }
}

fn library_backup(card: &FakeCard) -> PathBuf {
    card.library().with_extension("backup")
}

/// Moves the file itself: a copy would have another inode.
fn move_file(from: PathBuf, to: PathBuf) {
    fs::rename(from, to).expect("both are in the card's directory");
}
