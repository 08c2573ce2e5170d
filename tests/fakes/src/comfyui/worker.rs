//! The one worker: runs prompts one at a time, node by node, and tells of each in the recorded order.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{
    Core,
    events::PreviewFormat,
    files,
    graph::NodeResult,
    nodes::OutputTarget,
    queue::ComfyState,
    run::{End, Run},
    script::ComfyScript,
};

/// What every sampler preview shows: 512 pixels, whatever the picture's size.
const PREVIEW: &[u8] = include_bytes!("../../../fixtures/comfyui/preview.jpg");

pub(super) async fn work(core: Arc<Core>) {
    loop {
        core.until(|state| (state.heap.len() > 0).then_some(())).await;
        core.unless_hung().await;
        if let Some(run) = core.change(Run::begin) {
            perform(&core, run).await;
        }
    }
}

async fn perform(core: &Core, mut run: Run) {
    core.change(|state| run.announce(state));
    let mut end = End::Success;
    for node in run.order.clone() {
        if let Err(stop) = run_node(core, &mut run, &node).await {
            end = stop;
            break;
        }
    }
    core.unless_hung().await;
    let status = core.change(|state| run.send_end(state, &end));
    pass(core, |script| script.history_lag).await;
    core.unless_hung().await;
    core.change(|state| run.close(state, status));
}

async fn run_node(core: &Core, run: &mut Run, node: &str) -> Result<(), End> {
    core.unless_hung().await;
    if core.change(|state| run.repeat_cached(state, node)) {
        return Ok(());
    }
    core.change(|state| run.send_executing(state, node));
    unless_interrupted(core, node).await?;
    let fed = run.fed(core, node);
    let steps = fed.steps();
    match steps {
        Some(steps) => sample(core, run, node, steps).await?,
        None if !run.samples => fail_as_scripted(core, node)?,
        None => {}
    }
    let computing = tokio::task::spawn_blocking(move || (fed.compute(), fed));
    let (computed, fed) = computing.await.expect("no node panics on a validated workflow");
    let outputs = computed.map_err(|failure| End::Failed(node.to_owned(), failure))?;
    let shown = match fed.output_target() {
        None => None,
        Some(OutputTarget::Saved { folder, prefix }) => {
            let (texts, images) = (run.texts(), fed.images("images"));
            let size = images.first().map_or((0, 0), |one| (one.width, one.height));
            let encoding = move || images.iter().map(|one| one.to_png(&texts)).collect();
            let pictures = tokio::task::spawn_blocking(encoding).await.expect("the encoder does not panic");
            let saved = core.change(|state| files::save(state, folder, &prefix, pictures, size));
            Some(saved.ok_or_else(|| End::outside_output(node))?)
        }
        Some(OutputTarget::Sent) => {
            let total = fed.images("images").len();
            for (nth, image) in fed.images("images").iter().enumerate() {
                let png = image.to_png(&[]);
                core.change(|state| {
                    send_step(state, run, node, (nth, total), Some((PreviewFormat::Png, &png)));
                });
            }
            None
        }
    };
    core.change(|state| run.finish_node(state, node, NodeResult { outputs, ui: shown }));
    Ok(())
}

/// The sampler's steps, with whatever the script holds up after the first.
async fn sample(core: &Core, run: &mut Run, node: &str, steps: u64) -> Result<(), End> {
    for step in 1..=steps {
        let pause = core.look(|state| state.script.item) / u32::try_from(steps).expect("few steps");
        tokio::select! {
            () = core.until(|state| state.interrupted.then_some(())) => {}
            () = tokio::time::sleep(pause) => {}
        }
        unless_interrupted(core, node).await?;
        core.unless_hung().await;
        let preview = core.look(|state| run.wants_previews(state)).then_some((PreviewFormat::Jpeg, PREVIEW));
        let at = (usize::try_from(step).expect("few"), usize::try_from(steps).expect("few"));
        core.change(|state| send_step(state, run, node, at, preview));
        if step == 1 {
            fail_as_scripted(core, node)?;
            core.until(|state| (!state.script.hold || state.interrupted).then_some(())).await;
        }
    }
    unless_interrupted(core, node).await
}

/// One step: where event 4 is negotiated the picture comes before its progress, else after.
fn send_step(
    state: &ComfyState,
    run: &mut Run,
    node: &str,
    (value, max): (usize, usize),
    preview: Option<(PreviewFormat, &[u8])>,
) {
    run.send_progress(state, node, (json!(value), json!(max)), "running");
    let show = || {
        if let Some((kind, bytes)) = preview {
            state.send_preview(node, kind, bytes);
        }
    };
    if state.knows_metadata() {
        show();
    }
    let progress = json!({"value": value, "max": max, "prompt_id": run.prompt_id, "node": node});
    state.send_or_broadcast("progress", &progress);
    if !state.knows_metadata() {
        show();
    }
}

/// Looks at the flag, as the real server does between steps and between nodes.
async fn unless_interrupted(core: &Core, node: &str) -> Result<(), End> {
    if !core.look(|state| state.interrupted) {
        return Ok(());
    }
    pass(core, |script| script.cancel_tail).await;
    Err(End::Interrupted(node.to_owned()))
}

/// Lets a scripted time pass; it ends at once when it is set to zero.
async fn pass(core: &Core, time: impl Fn(&ComfyScript) -> Duration) {
    tokio::select! {
        () = tokio::time::sleep(core.look(|state| time(&state.script))) => {}
        () = core.until(|state| time(&state.script).is_zero().then_some(())) => {}
    }
}

fn fail_as_scripted(core: &Core, node: &str) -> Result<(), End> {
    match core.look(|state| state.script.fail.clone()) {
        Some(failure) => Err(End::Failed(node.to_owned(), failure)),
        None => Ok(()),
    }
}
