//! Prompts: which texts are bound, and where there are none.

use super::*;

#[test]
fn texts_are_found_behind_other_nodes() {
    let guidance = || node("FluxGuidance", &json!({"guidance": 3.5, "conditioning": ["6", 0]}));
    let text = |text: &str| node("PrimitiveStringMultiline", &json!({"value": text}));
    let zero = || node("ConditioningZeroOut", &json!({"conditioning": ["6", 0]}));
    for (changes, prompt, negative) in [
        (vec![], "6.text", "7.text"),
        (vec![("1", guidance()), ("3.positive", json!(["1", 0]))], "6.text", "7.text"),
        // Both conditionings through one node, each by its own output.
        (
            vec![
                ("1", node("ControlNetApplyAdvanced", &json!({"positive": ["6", 0], "negative": ["7", 0]}))),
                ("3.positive", json!(["1", 0])),
                ("3.negative", json!(["1", 1])),
            ],
            "6.text",
            "7.text",
        ),
        (vec![("1", text("a dog")), ("6.text", json!(["1", 0]))], "1.value", "7.text"),
        // The longest part of a text that is put together.
        (
            vec![
                ("1", text("a long description")),
                ("2", text("best")),
                ("6.text", json!(["13", 0])),
                (
                    "13",
                    node(
                        "StringConcatenate",
                        &json!({"string_a": ["2", 0], "string_b": ["1", 0], "delimiter": ", "}),
                    ),
                ),
            ],
            "1.value",
            "7.text",
        ),
        // No text behind the link: it is replaced.
        (
            vec![("1", node("Describe", &json!({"model": "x"}))), ("6.text", json!(["1", 0]))],
            "6.text",
            "7.text",
        ),
        (vec![("1", zero()), ("3.negative", json!(["1", 0]))], "6.text", ""),
        (vec![("3.negative", json!(["6", 0]))], "6.text", ""),
    ] {
        let proposal = of(&changed(&changes));
        assert_eq!(
            (bound(&proposal, "prompt"), bound(&proposal, "negative_prompt")),
            (prompt.into(), negative.into())
        );
        assert_eq!(proposal.outcome, Ok(Task::Generate), "{changes:?}");
    }
}

#[test]
fn encoders_with_several_texts_get_all_that_are_filled() {
    for (changes, prompt, negative) in [
        (
            vec![(
                "6",
                node(
                    "CLIPTextEncodeFlux",
                    &json!({"clip_l": "a", "t5xxl": "b", "guidance": 3, "clip": ["4", 1]}),
                ),
            )],
            "6.clip_l, 6.t5xxl",
            "7.text",
        ),
        (
            vec![(
                "6",
                node(
                    "CLIPTextEncodeFlux",
                    &json!({"clip_l": "", "t5xxl": "b", "guidance": 3, "clip": ["4", 1]}),
                ),
            )],
            "6.t5xxl",
            "7.text",
        ),
        (
            vec![
                ("6", Value::Null),
                ("7", Value::Null),
                ("4", node("Efficient Loader", &json!({"ckpt_name": "x", "positive": "a", "negative": "b"}))),
                ("3.positive", json!(["4", 1])),
                ("3.negative", json!(["4", 2])),
            ],
            "4.positive",
            "4.negative",
        ),
    ] {
        let proposal = of(&changed(&changes));
        assert_eq!(
            (bound(&proposal, "prompt"), bound(&proposal, "negative_prompt")),
            (prompt.into(), negative.into())
        );
        assert_eq!(proposal.outcome, Ok(Task::Generate), "{changes:?}");
    }
}

#[test]
fn other_texts_stay_and_are_named() {
    let combined = changed(&[
        ("1", node("CLIPTextEncode", &json!({"text": "a dog", "clip": ["4", 1]}))),
        ("2", node("ConditioningCombine", &json!({"conditioning_1": ["6", 0], "conditioning_2": ["1", 0]}))),
        ("3.positive", json!(["2", 0])),
    ]);
    let proposal = of(&combined);
    assert_eq!(bound(&proposal, "prompt"), "6.text");
    assert!(notes(&proposal).contains("prompt is not bound to 1.text: another text"), "{proposal:?}");
    let same = of(&change(combined, &[("1.text", json!("a cat"))]));
    assert_eq!(bound(&same, "prompt"), "6.text, 1.text");
}

#[test]
fn an_edit_may_take_no_prompt_and_no_seed_and_says_so() {
    let without = |proposal: &Proposal| {
        let line = proposal.text.lines().find_map(|line| line.strip_prefix("without: "));
        (line.unwrap_or_default().to_owned(), proposal.outcome.clone())
    };
    let cut_out = |inputs: &Value| {
        json!({
            "1": node("LoadImage", &json!({"image": "x.png"})),
            "2": node("RemoveBackground", inputs),
            "3": node("SaveImage", &json!({"images": ["2", 0]}))})
    };
    let proposal = of(&cut_out(&json!({"image": ["1", 0]})));
    assert_eq!(without(&proposal), ("[prompt, seed]".to_owned(), Ok(Task::Edit)));
    assert!(proposal.text.contains("# No prompt: the output depends on no text"), "{}", proposal.text);
    let searched = of(&cut_out(&json!({"image": ["1", 0], "prompt": "the cat", "text": "a caption"})));
    assert_eq!(without(&searched), ("[seed]".to_owned(), Ok(Task::Edit)));
    assert_eq!(bound(&searched, "prompt"), "2.prompt");
    assert!(!searched.text.contains("conditioning"), "there is none: {}", searched.text);
    let refused = reasons(&of(&cut_out(&json!({"image": 7}))));
    assert!(refused.starts_with("no prompt: ") && refused.contains("\nno seed: "), "{refused}");
    let sampled =
        of(&change(from_picture(), &[("3.positive", json!(["4", 3])), ("3.negative", json!(["4", 3]))]));
    assert!(reasons(&sampled).starts_with("no prompt: "), "a sampler takes one, wherever it is");
    let by_pictures = of(&change(
        from_picture(),
        &[
            ("1", node("ConditioningZeroOut", &json!({"conditioning": ["6", 0]}))),
            ("3.positive", json!(["1", 0])),
        ],
    ));
    assert_eq!(without(&by_pictures), ("[prompt]".to_owned(), Ok(Task::Edit)));
}

#[test]
fn new_pictures_need_a_prompt_and_a_seed() {
    let zeroed = changed(&[
        ("1", node("ConditioningZeroOut", &json!({"conditioning": ["6", 0]}))),
        ("3.positive", json!(["1", 0])),
    ]);
    assert!(reasons(&of(&zeroed)).contains("1 (ConditioningZeroOut) empties the positive conditioning"));
    let service = json!({
        "1": node("IdeogramV3", &json!({"prompt": "", "seed": 4})),
        "2": node("SaveImage", &json!({"images": ["1", 0]}))});
    let proposal = of(&service);
    assert_eq!((bound(&proposal, "prompt"), bound(&proposal, "seed")), ("1.prompt".into(), "1.seed".into()));
    assert_eq!(proposal.outcome, Ok(Task::Generate));
}
