use std::{sync::Arc, thread};

use super::*;
use crate::history::{Level, Part, Value};

#[test]
fn events_of_many_threads_stand_in_one_order_and_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    let recorder = Arc::new(Recorder::with_file(&path).unwrap());
    let threads = [(); 4].map(|()| {
        let recorder = recorder.clone();
        thread::spawn(move || {
            let proc = recorder.proc();
            for counter in 0..500 {
                let values = vec![Value(u64::from(proc) << 40 | counter)];
                let send = Operation::Send {
                    at: Part(0, 0),
                    values,
                    keys: vec![],
                    level: Level::Os,
                    offset: None,
                    reached: None,
                };
                recorder.invoke(proc, send.clone());
                recorder.info(proc, send, "no answer");
            }
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    let events = recorder.finish().unwrap();
    assert_eq!(events.len(), 4_000);
    assert!(events.is_sorted_by(|a, b| a.index < b.index && a.t_ns <= b.t_ns));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, events);
}
