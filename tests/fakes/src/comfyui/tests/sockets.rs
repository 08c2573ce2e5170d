//! The socket's table, its trap, and who hears what.

use super::*;

#[tokio::test]
async fn the_flags_count_only_as_the_first_message_and_junk_is_ignored() {
    let fake = FakeComfy::start().await;
    let flags = json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}).to_string();
    let mut socket = follow(&fake, CLIENT).await;
    for said in [Message::text("{\"type\":\"hello\"}"), Message::binary(vec![1, 2]), Message::text(flags)] {
        socket.send(said).await.unwrap();
    }
    enqueue(&fake, &txt2img(1)).await;
    let told = frames(&mut socket, is_last).await;
    assert!(!types(&told).contains(&"feature_flags"));

    let mut socket = follow_with_flags(&fake, "another").await;
    let told = frames(&mut socket, is_of("feature_flags")).await;
    assert_eq!(told[0]["data"]["sid"], "another");
    assert_eq!(told[1]["data"], get(&fake, "/features").await);
}

#[tokio::test]
async fn a_socket_without_an_id_is_told_one() {
    let fake = FakeComfy::start().await;
    let (mut socket, _) =
        connect_async(format!("{}/api/ws", fake.url().replace("http", "ws"))).await.unwrap();
    let first = frame(&mut socket).await.unwrap();
    assert_eq!(first["data"]["sid"].as_str().unwrap().len(), 32);
}

#[tokio::test]
async fn previews_come_as_the_server_or_the_prompt_says() {
    for (by_server, by_prompt, come) in [
        (false, None, 0),
        (false, Some("latent2rgb"), 2),
        (false, Some("auto"), 2),
        (false, Some("taesd"), 2),
        (false, Some("bogus"), 0),
        (true, None, 2),
        (true, Some("default"), 2),
        (true, Some("none"), 0),
    ] {
        let fake = FakeComfy::start().await;
        fake.script(|script| script.previews = by_server);
        let mut socket = follow(&fake, CLIENT).await;
        let extra = by_prompt.map_or_else(|| json!({}), |method| json!({ "preview_method": method }));
        let body = json!({"prompt": txt2img(1), "client_id": CLIENT, "extra_data": extra});
        post(&fake, "/prompt", &body).await;
        let told = frames(&mut socket, is_last).await;
        let previews = types(&told).iter().filter(|kind| **kind == "binary").count();
        assert_eq!(previews, come, "{by_server} {by_prompt:?}");
    }
}

#[tokio::test]
async fn others_hear_only_the_queue_and_a_prompt_without_a_client_sends_event_1_to_all() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.previews = true);
    let mut mine = follow_with_flags(&fake, CLIENT).await;
    let mut other = follow(&fake, "other").await;
    frames(&mut mine, is_of("feature_flags")).await;
    enqueue(&fake, &txt2img(1)).await;
    frames(&mut mine, is_last).await;
    let over = |frame: &Value| frame["data"]["status"]["exec_info"]["queue_remaining"] == 0;
    frames(&mut other, over).await;
    assert_eq!(types(&frames(&mut other, over).await), ["status"; 3]);

    post(&fake, "/prompt", &json!({"prompt": txt2img(2)})).await;
    let told = frames(&mut mine, over).await;
    let kinds = types(&told);
    assert!(
        ["execution_start", "executing", "executed", "execution_success"]
            .iter()
            .all(|kind| !kinds.contains(kind))
    );
    let preview = told.iter().find(|frame| frame.get("binary").is_some()).unwrap();
    assert_eq!(preview["binary"]["event_code"], 1, "although event 4 was negotiated");
}

#[tokio::test]
async fn a_socket_that_comes_in_the_middle_learns_the_node_and_nothing_of_before() {
    let fake = FakeComfy::start().await;
    fake.script(|script| script.hold = true);
    let mut first = follow(&fake, CLIENT).await;
    enqueue(&fake, &txt2img(1)).await;
    frames(&mut first, is_of("progress")).await;
    first.close(None).await.unwrap();
    fake.until_followed(0).await;
    let mut second = follow(&fake, CLIENT).await;
    let told = [frame(&mut second).await.unwrap(), frame(&mut second).await.unwrap()];
    assert_eq!(told[0]["data"]["status"]["exec_info"]["queue_remaining"], 1);
    assert_eq!(told[1], json!({"type": "executing", "data": {"node": "3"}}));
    fake.script(|script| script.hold = false);
    let told = frames(&mut second, is_last).await;
    assert!(!types(&told).contains(&"execution_start") && types(&told).contains(&"execution_success"));
}

#[tokio::test]
async fn an_old_socket_that_goes_silences_the_new_one_of_the_same_id() {
    let fake = FakeComfy::start().await;
    let mut old = follow(&fake, CLIENT).await;
    frame(&mut old).await.unwrap();
    let mut new = follow(&fake, CLIENT).await;
    let first = enqueue(&fake, &txt2img(1)).await;
    frames(&mut new, is_last).await;
    old.close(None).await.unwrap();
    assert_eq!(frame(&mut old).await, None, "the old one heard nothing since");
    fake.until_followed(0).await;
    let second = enqueue(&fake, &txt2img(2)).await;
    fake.until_idle().await;
    fake.drop_sockets();
    assert_eq!(frame(&mut new).await, None, "the new one stayed open and silent");
    assert!(entry(&fake, &second).await.is_object());
    assert!(fake.finished_event_at(&first).is_some() && fake.finished_event_at(&second).is_none());
}
