//! The built `wtacrs doctor`.

use super::stdout;
use serde_json::Value;

#[test]
fn every_machine_has_a_path_and_a_reason() {
    let text = stdout(&["doctor"]);
    let lines: Vec<&str> = text.lines().collect();
    for (line, name) in lines.iter().zip(["wtacrs ", "CPU ", "kernels ", "driver ", "GPU "]) {
        assert!(line.starts_with(name), "{text}");
    }
    let last = lines.last().expect("lines");
    assert!(last.starts_with("runs on  CPU: ") || last.starts_with("runs on  GPU: "), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains("panicked"), "{text}");
    let found: Value = serde_json::from_str(&stdout(&["doctor", "--format", "json"])).expect("JSON");
    let keys: Vec<&String> = found.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["cpu", "driver", "gpus", "kernels", "path", "reason", "version"]);
    assert!(found["cpu"]["threads"].as_u64() >= Some(1));
    assert!(last.ends_with(found["reason"].as_str().expect("a text")));

    // Without a driver the output is known.
    if found["driver"]["cuda"].is_null() {
        assert_eq!(*last, "runs on  CPU: there is no CUDA driver on this machine (no libcuda.so)");
        assert!(lines.contains(&"GPU      none"), "{text}");
        assert_eq!((found["path"].as_str(), found["gpus"].as_array().map(Vec::len)), (Some("cpu"), Some(0)));
    }
}
