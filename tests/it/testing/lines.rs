//! The lines of the files of results: their fates, forms and order.

use std::time::Duration;

use docvector_embed::testing::{BatchPlan, LineFate, LineOrder, Simulator};
use serde_json::{Value, json};

use super::{
    LONG, MODEL,
    client::{Client, ids, text, vectors},
    line, line_of, lines, start,
};

/// Runs a batch of these lines and returns it with its output and its errors.
fn run(simulator: &Simulator, client: &Client, lines: &[Value]) -> (Value, Vec<Value>, Vec<Value>) {
    let id = client.submit(lines);
    simulator.advance(LONG);
    let batch = client.batch(&id);
    assert_eq!(batch["status"], "completed");
    let file = |name: &str| if batch[name].is_null() { Vec::new() } else { client.lines(&batch[name]) };
    let (output, errors) = (file("output_file_id"), file("error_file_id"));
    (batch, output, errors)
}

#[test]
fn each_line_meets_the_fate_that_is_scripted_for_it() {
    let (simulator, client) = start();
    let fates = [
        LineFate::status(400, "invalid_value", "Not this text."),
        LineFate::status(503, "server_error", "Try again."),
        LineFate::status(0, "", ""),
        LineFate::no_credit(),
        LineFate::error("server_error", "It broke."),
        LineFate::missing(),
        LineFate::twice(),
        LineFate::raw("<html>no JSON</html>"),
    ];
    for (number, fate) in fates.into_iter().enumerate() {
        let wanted = format!("text {number}");
        simulator.script_lines(fate, None, move |line| line.number == number && line.texts == [wanted.as_str()]);
    }
    let id = client.submit(&lines(9));
    simulator.advance(LONG);
    let batch = client.batch(&id);
    assert_eq!(batch["request_counts"], json!({"total": 9, "completed": 5, "failed": 4}));

    let errors = client.lines(&batch["error_file_id"]);
    assert_eq!(ids(&errors), ["line 0", "line 1", "line 3", "line 4"]);
    let status = |line: &Value| line["response"]["status_code"].as_u64();
    assert_eq!(errors.iter().map(status).collect::<Vec<_>>(), [Some(400), Some(503), Some(429), None]);
    assert_eq!(errors[0]["response"]["body"]["error"]["code"], "invalid_value");
    assert_eq!(errors[2]["response"]["body"]["error"]["type"], "insufficient_quota");
    assert_eq!(errors[3]["error"], json!({"code": "server_error", "message": "It broke."}));

    let output = String::from_utf8(client.content(&batch["output_file_id"])).expect("UTF-8");
    let output: Vec<&str> = output.lines().collect();
    assert_eq!(output[3], "<html>no JSON</html>");
    let whole: Vec<Value> = [0, 1, 2, 4].map(|i| serde_json::from_str(output[i]).expect("JSON")).to_vec();
    assert_eq!(ids(&whole), ["line 2", "line 6", "line 6", "line 8"]);
    assert_eq!((status(&whole[0]), &whole[1]), (Some(0), &whole[2]));

    // Answered lines are billed, and no other.
    let billed: Vec<u64> = (0..9).map(|i| simulator.billed(&format!("text {i}"))).collect();
    assert_eq!(billed, [0, 0, 0, 0, 0, 0, 1, 1, 1]);
    assert_eq!(batch["usage"]["total_tokens"], 6);
}

#[test]
fn a_fate_for_some_lines_is_used_up_and_can_be_forgotten() {
    let (simulator, client) = start();
    simulator.script_lines(LineFate::status(500, "server_error", "Once."), Some(2), |_| true);
    let (_, output, errors) = run(&simulator, &client, &lines(3));
    assert_eq!((ids(&output), ids(&errors)), (vec!["line 2".into()], vec!["line 0".into(), "line 1".into()]));
    let (_, output, _) = run(&simulator, &client, &lines(3));
    assert_eq!(output.len(), 3);
    simulator.script_lines(LineFate::missing(), None, |line| line.custom_id == "line 1");
    assert_eq!(run(&simulator, &client, &lines(3)).1.len(), 2);
    simulator.clear_lines();
    assert_eq!(run(&simulator, &client, &lines(3)).1.len(), 3);
}

#[test]
fn a_refused_line_is_not_seen_by_the_script_and_uses_no_fate_up() {
    let (simulator, client) = start();
    simulator.script_lines(LineFate::status(500, "server_error", "Once."), Some(1), |_| true);
    let refused = line_of("refused", &json!({"model": MODEL, "input": ""}));
    // A blank line has no number.
    let content = [refused.to_string(), String::new(), line("a", &["a"]).to_string(), line("b", &["b"]).to_string()];
    simulator.script_lines(LineFate::missing(), None, |line| line.number == 2);
    let id = client.create(&client.upload(content.join("\n").as_bytes()));
    simulator.advance(LONG);
    let batch = client.batch(&id);
    let errors = client.lines(&batch["error_file_id"]);
    assert_eq!(ids(&errors), ["refused", "a"]);
    let status = |line: &Value| line["response"]["status_code"].clone();
    assert_eq!((status(&errors[0]), status(&errors[1])), (json!(400), json!(500)));
    assert_eq!((&batch["output_file_id"], &batch["request_counts"]["completed"]), (&Value::Null, &json!(1)));
}

#[test]
fn a_batch_of_failed_lines_completes_without_an_output() {
    let (simulator, client) = start();
    simulator.script_lines(LineFate::status(500, "server_error", "All."), None, |_| true);
    let (batch, output, errors) = run(&simulator, &client, &lines(3));
    assert_eq!((&batch["output_file_id"], output.len(), errors.len()), (&Value::Null, 0, 3));

    simulator.plan_next(BatchPlan::default().with_counts_of_success());
    let (batch, _, errors) = run(&simulator, &client, &lines(3));
    assert_eq!((&batch["request_counts"]["completed"], errors.len()), (&json!(3), 3));
}

#[test]
fn a_bad_body_fails_its_line_alone() {
    let (simulator, client) = start();
    let body = |input: Value| json!({"model": MODEL, "input": input, "dimensions": 8});
    let long = "x".repeat(4 * 8191 + 1);
    let bad = [
        body(json!("")),
        body(json!([])),
        body(json!(["good", ""])),
        body(json!(vec!["a"; 2049])),
        body(json!(long)),
        body(json!(vec!["x".repeat(4 * 8191); 37])),
        json!({"model": MODEL, "input": "x", "dimensions": 1537}),
        json!({"model": MODEL, "input": "x", "encoding_format": "hex"}),
    ];
    let mut all: Vec<Value> = bad.iter().enumerate().map(|(i, body)| line_of(&format!("bad {i}"), body)).collect();
    all.push(line("good", &["good"]));
    let (batch, output, errors) = run(&simulator, &client, &all);
    assert_eq!((ids(&output), errors.len()), (vec!["good".to_owned()], bad.len()));
    assert!(errors.iter().all(|line| line["response"]["status_code"] == 400 && line["error"].is_null()));
    assert_eq!(errors[5]["response"]["body"]["error"]["code"], "max_tokens_per_request");
    assert_eq!(batch["request_counts"]["failed"], bad.len());
    assert_eq!((simulator.bills().texts, simulator.billed("good")), (1, 1));
}

#[test]
fn lines_and_rows_come_in_the_order_that_is_planned() {
    let (simulator, client) = start();
    let wanted = ids(&run(&simulator, &client, &lines(50)).1);
    let order = |order| {
        simulator.plan_next(BatchPlan::default().with_order(order));
        ids(&run(&simulator, &client, &lines(50)).1)
    };
    let mut reversed = order(LineOrder::Reversed);
    reversed.reverse();
    assert_eq!(reversed, wanted);
    let mut shuffled = order(LineOrder::Shuffled(1));
    assert_eq!(shuffled, order(LineOrder::Shuffled(1)));
    assert_ne!(shuffled, order(LineOrder::Shuffled(2)));
    assert_ne!(shuffled, wanted);
    shuffled.sort_by_key(|id| wanted.iter().position(|other| other == id));
    assert_eq!(shuffled, wanted);

    simulator.script_lines(LineFate::reversed_rows(), None, |_| true);
    let (_, output, _) = run(&simulator, &client, &[line("fat", &["a", "b", "c"])]);
    let body = &output[0]["response"]["body"];
    assert_eq!((&body["data"][0]["index"], &body["data"][2]["index"]), (&json!(2), &json!(0)));
    assert_eq!(vectors(body), ["a", "b", "c"].map(|text| simulator.vector(MODEL, 8, text)));
}

#[test]
fn lines_have_the_form_and_width_that_they_ask_for() {
    let (simulator, client) = start();
    let body = |change: Value| {
        let mut body = json!({"model": MODEL, "input": "a text"});
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        body
    };
    let bodies = [
        (json!({}), 1536),
        (json!({"encoding_format": "float", "dimensions": 3}), 3),
        (json!({"encoding_format": "base64"}), 1536),
        (json!({"encoding_format": "base64", "dimensions": 1}), 1),
    ];
    let all: Vec<Value> =
        bodies.iter().enumerate().map(|(i, (change, _))| line_of(&i.to_string(), &body(change.clone()))).collect();
    let (_, output, _) = run(&simulator, &client, &all);
    for (line, (change, width)) in output.iter().zip(&bodies) {
        let row = &line["response"]["body"]["data"][0]["embedding"];
        assert_eq!(row.is_string(), change["encoding_format"] == "base64");
        assert_eq!(vectors(&line["response"]["body"]), [simulator.vector(MODEL, *width, "a text")]);
    }
}

#[test]
fn without_credit_lines_fail_and_cost_nothing() {
    let (simulator, client) = start();
    // A text has two tokens.
    simulator.set_credit(Some(5));
    let (batch, output, errors) = run(&simulator, &client, &lines(4));
    assert_eq!((ids(&output), errors.len()), (vec!["line 0".into(), "line 1".into()], 2));
    assert_eq!(errors[0]["response"]["body"]["error"]["code"], "insufficient_quota");
    assert_eq!((&batch["usage"]["total_tokens"], simulator.bills().batch_tokens), (&json!(4), 4));
    let refused = client.post("/v1/embeddings", &json!({"model": MODEL, "input": "more than is left"}));
    assert_eq!(refused.refusal(), (429, Some("insufficient_quota".to_owned())));
    simulator.set_credit(None);
    assert_eq!(run(&simulator, &client, &lines(4)).1.len(), 4);
    assert_eq!(simulator.bills().most_per_text, 2);
}

/// Most of this file's vectors come in the middle of a piece.
#[test]
fn a_large_file_is_made_as_it_is_read() {
    let (simulator, client) = start();
    let texts: Vec<String> = (0..300).map(|i| format!("text {i}")).collect();
    let lines: Vec<Value> = texts
        .chunks(50)
        .enumerate()
        .map(|(i, texts)| line_of(&i.to_string(), &json!({"model": MODEL, "input": texts})))
        .collect();
    simulator.plan_next(BatchPlan::default().with_running(Duration::ZERO));
    let (batch, output, _) = run(&simulator, &client, &lines);
    let found: Vec<Vec<f32>> = output.iter().flat_map(|line| vectors(&line["response"]["body"])).collect();
    assert_eq!(found.len(), 300);
    for (text, vector) in texts.iter().zip(&found) {
        assert_eq!(*vector, simulator.vector(MODEL, 1536, text));
    }
    let file = client.get_json(&format!("/v1/files/{}", text(&batch["output_file_id"])));
    assert!(file["bytes"].as_u64() > Some(9_000_000), "{file}");
}
