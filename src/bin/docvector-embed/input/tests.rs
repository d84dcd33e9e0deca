//! Tests of windows: how they are cut, what they weigh, and when they end.

use std::{
    io::Cursor,
    sync::mpsc::{Receiver, channel},
};

use super::{gunzip::testing::gzip, items::testing::shown, *};

fn options(format: InputFormat) -> InputOptions {
    InputOptions::by_name(format)
}

fn at_rest(bytes: &[u8], format: InputFormat) -> Result<Input, Failure> {
    Input::at_rest(Box::new(Cursor::new(bytes.to_vec())), "test", &options(format))
}

fn windows(bytes: &[u8]) -> Vec<Window> {
    let input = at_rest(bytes, InputFormat::Lines).expect("opened");
    input.map(|window| window.expect("readable")).collect()
}

fn said<T>(result: Result<T, Failure>) -> String {
    match result {
        Err(Failure::Error(error)) => error.to_string(),
        _ => String::new(),
    }
}

#[test]
fn windows_hold_so_much_and_no_more() {
    let lengths = |windows: &[Window]| windows.iter().map(|window| window.lines.len()).collect::<Vec<_>>();
    let bytes = |windows: &[Window]| windows.iter().map(|window| window.bytes).sum::<u64>();
    let many = windows(&b"x\n".repeat(2500));
    assert_eq!((lengths(&many), bytes(&many)), (vec![64, 1024, 1024, 388], 5000));

    let long = "y".repeat(3 << 20);
    let text = format!("a\nb\n{long}\nc\n");
    let few = windows(text.as_bytes());
    assert_eq!((lengths(&few), bytes(&few)), (vec![2, 1, 1], text.len() as u64));
    assert!(windows(b"").is_empty());
}

#[test]
fn windows_weigh_as_much_as_the_input_in_every_format() {
    let csv: String = (0..3000).map(|number| format!("{number},text {number}\n")).collect();
    let objects: Vec<String> = (0..3000).map(|number| format!("{{\"text\":\"text {number}\"}}")).collect();
    for (format, content) in [
        (InputFormat::Lines, csv.clone()),
        (InputFormat::Csv, format!("id,text\n{csv}\n\n")),
        (InputFormat::Tsv, format!("id\ttext\r\n{}", csv.replace(',', "\t"))),
        (InputFormat::Jsonl, objects.join("\n")),
        (InputFormat::Json, format!("\u{FEFF}[\n{}\n]\n\n", objects.join(",\n  "))),
    ] {
        for bytes in [content.clone().into_bytes(), gzip(content.as_bytes())] {
            let input = at_rest(&bytes, format).expect("opened");
            let windows: Vec<Window> = input.map(|window| window.expect("readable")).collect();
            assert_eq!(windows.iter().map(|window| window.bytes).sum::<u64>(), bytes.len() as u64, "{format:?}");
            assert_eq!(windows.iter().map(|window| window.lines.len()).sum::<usize>(), 3000, "{format:?}");
        }
    }
}

#[test]
fn a_reading_error_is_the_last_item() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    // More than the beginning that is looked at when the input is opened.
    let lines = b"one\n".repeat(3000);
    let reader = BufReader::with_capacity(8 << 10, Cursor::new(lines).chain(Broken));
    let mut input = Input::at_rest(Box::new(reader), "test", &options(InputFormat::Lines)).expect("opened");
    let mut errors = 0;
    for window in input.by_ref() {
        if let Err(failure) = window {
            errors += 1;
            assert_eq!(said::<()>(Err(failure)), "test cannot be read after line 3000");
        } else {
            assert_eq!(errors, 0);
        }
    }
    assert_eq!(errors, 1);
    assert!(input.next().is_none());
}

#[test]
fn what_can_be_known_at_once_is_said_at_once() {
    for (format, bytes, what) in [
        (InputFormat::Lines, &b"%PDF-1.7"[..], "test looks like a PDF document: "),
        (InputFormat::Lines, b"[\n{}\n]", "test looks like a JSON array: "),
        (InputFormat::Csv, b"a,b\n1,2\n", "test, line 1: there is no column `text`: "),
        (InputFormat::Csv, b"", "test, line 1: the row with the names of the columns is missing"),
        (InputFormat::Json, b"", "test, line 1: the input is empty"),
        (InputFormat::Json, b"{}", "test, line 1: this begins with `{`"),
    ] {
        assert!(said(at_rest(bytes, format)).starts_with(what), "{what}");
    }
    assert_eq!(at_rest(b"[]", InputFormat::Json).expect("opened").count(), 0);
}

#[test]
fn a_fault_behind_a_whole_window_comes_after_it() {
    let elements = vec!["\"a\""; FIRST_TEXTS].join(",");
    let mut input = at_rest(format!("[{elements}\n}}").as_bytes(), InputFormat::Json).expect("opened");
    assert!(input.next().is_some_and(|window| window.is_ok_and(|window| window.lines.len() == FIRST_TEXTS)));
    assert!(input.next().is_some_and(|window| said(window).starts_with("test, line 2: `,` or `]` is missing")));
    assert!(input.next().is_none());
}

#[test]
fn a_first_line_of_json_is_noticed_unless_lines_are_asked_for() {
    let looks_like_json = |bytes: &[u8], options: InputOptions| {
        let input = Input::at_rest(Box::new(Cursor::new(bytes.to_vec())), "test", &options);
        let mut input = input.expect("opened").without_warning();
        assert!(input.next().is_some());
        input.looks_like_json()
    };
    let object = b"{\"text\":\"a\"}\n";
    assert!(looks_like_json(object, options(InputFormat::Lines)));
    assert!(!looks_like_json(object, options(InputFormat::Lines).named()));
    assert!(!looks_like_json(object, options(InputFormat::Jsonl)));
    assert!(!looks_like_json(b"a\n{\"text\":\"a\"}\n", options(InputFormat::Lines)));
}

/// A reader of what is sent to it.
struct Sent(Receiver<&'static [u8]>);

impl Read for Sent {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.recv().map_or(Ok(0), |mut part| part.read(into))
    }
}

#[test]
fn a_window_ends_in_a_pause() {
    for (format, first, second) in [
        (InputFormat::Lines, &b"a\nb\npart of "[..], &b"a line\n"[..]),
        (InputFormat::Jsonl, b"{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\":\"part of ", b"a line\"}\n"),
        (InputFormat::Json, b"[\"a\",\n\"b\", \"part of ", b"a line\"]"),
        (InputFormat::Csv, b"text\na\nb\n\"part of ", b"a line\"\n"),
    ] {
        let (sending, sent) = channel();
        let mut input = Input::live(Sent(sent), "test", &options(format)).expect("started");
        sending.send(first).expect("sent");
        let texts = |window: Window| {
            let text = |line: &InputLine| shown(line).split_once(": ").map(|(_, text)| text.to_owned());
            window.lines.iter().filter_map(text).collect::<Vec<_>>()
        };
        // A machine that is busy may cut between them.
        let mut early = Vec::new();
        while early.len() < 2 {
            early.extend(texts(input.next().expect("a window").expect("readable")));
        }
        assert_eq!(early, ["a", "b"], "{format:?}");
        sending.send(second).expect("sent");
        drop(sending);
        assert_eq!(texts(input.next().expect("a window").expect("readable")), ["part of a line"], "{format:?}");
        assert!(input.next().is_none());
    }
}

#[test]
fn a_live_input_is_refused_by_its_first_line() {
    for (bytes, what) in [
        (&b"[\n"[..], "test looks like a JSON array: "),
        (b"\xFF\xFEa\0\n\0", "test looks like UTF-16"),
        (b"\x1F\x8B\x08\x00", "test cannot be read"),
    ] {
        let mut input = Input::live(Cursor::new(bytes), "test", &options(InputFormat::Lines)).expect("started");
        let first = input.next().expect("an item");
        assert!(said(first).starts_with(what), "{what}");
        assert!(input.next().is_none());
    }
}

#[test]
fn a_live_input_has_the_lines_of_one_at_rest() {
    let text: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    let live = Input::live(Cursor::new(text.clone()), "test", &options(InputFormat::Lines)).expect("started");
    let lines = |input: Input| input.flat_map(|window| window.expect("readable").lines).collect::<Vec<_>>();
    assert!(lines(live) == lines(at_rest(text.as_bytes(), InputFormat::Lines).expect("opened")));
}
