//! What an engine says of items that are not ours, or says wrongly: it never counts as ours.

use e2e::sidecar::Sidecar;
use fakes::invokeai::{FakeInvoke, ItemStatus, QueueItem};
use serde_json::{Value, json};

async fn both(flags: &[&str]) -> (FakeInvoke, Sidecar) {
    let fake = FakeInvoke::start().await;
    let sidecar = Sidecar::invokeai(&fake.url(), flags).await;
    sidecar.until_ready().await;
    fake.until_followed(1).await;
    (fake, sidecar)
}

fn over(item: &QueueItem) -> bool {
    !matches!(item.status, ItemStatus::Pending | ItemStatus::InProgress)
}

fn event(name: &str, data: &Value) -> String {
    format!("42[\"{name}\",{data}]")
}

#[tokio::test]
async fn items_that_were_not_ordered_finish_no_job_even_in_its_own_batch() {
    let (fake, sidecar) = both(&[]).await;
    let request = json!({"prompt": "a", "size": "64x64", "n": 2, "seed": 7});
    assert_eq!(sidecar.generate(&json!({"prompt": "b", "size": "64x64"})).await.status, 200);
    let somebodys = fake.gallery().remove(0);
    fake.script(|script| script.hold = true);
    let lies = async {
        fake.until(|items| items.len() == 3 && items[1].status == ItemStatus::InProgress).await;
        let batch = fake.items().remove(1).batch_id;
        for item in [99, 100] {
            let (about, picture) =
                (json!({"item_id": item, "batch_id": batch}), json!({"image_name": somebodys}));
            let with = |more: Value| {
                let mut all = about.clone();
                all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                all
            };
            let made = json!({"invocation_source_id": "l2i", "result": {"image": picture}});
            fake.broadcast_raw(&event("invocation_progress", &with(json!({"percentage": 1.0}))));
            fake.broadcast_raw(&event("invocation_complete", &with(made)));
            fake.broadcast_raw(&event("queue_item_status_changed", &with(json!({"status": "completed"}))));
            fake.broadcast_raw(&event("queue_item_status_changed", &with(json!({"status": "failed"}))));
            fake.broadcast_raw(&event("queue_item_status_changed", &with(json!({"status": "canceled"}))));
        }
        fake.broadcast_raw(&event("queue_items_canceled", &json!({"canceled_item_ids": [99, 100]})));
        fake.script(|script| script.hold = false);
    };
    let (answer, ()) = tokio::join!(sidecar.generate(&request), lies);
    assert_eq!(answer.status, 200, "{answer:?}");
    let seeds: Vec<_> =
        answer.json["data"].as_array().unwrap().iter().map(|picture| &picture["seed"]).collect();
    assert_eq!(seeds, [&json!(7), &json!(8)], "those that were ordered, and all of them");
}

#[tokio::test]
async fn an_order_that_is_answered_with_other_items_is_502_and_cancelled() {
    // Too many, one twice: seen at once. Others in the place of ours: seen when they are looked for.
    for told in [vec![3, 2, 1], vec![1, 1], vec![100, 99]] {
        let (fake, sidecar) = both(&[]).await;
        fake.script(|script| {
            script.hold = true;
            script.reported_items = Some(told.clone());
        });
        let answer = sidecar.generate(&json!({"prompt": "a", "size": "64x64", "n": 2})).await;
        assert_eq!((answer.status, answer.header("x-should-retry")), (502, "false"), "{told:?}: {answer:?}");
        fake.until(|items| items.iter().all(over)).await;
        assert_eq!(fake.cancels().len(), 1, "{told:?}");
        sidecar.until_inflight(0).await;
    }
}
