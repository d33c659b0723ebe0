//! Compares JSON of drbdsetup with ours.

use serde_json::Value;

/// What of theirs is also ours must be equal; how many values that was.
/// drbdsetup keeps the kernel's order, we sort by key.
pub(crate) fn contains(path: &str, theirs: &Value, ours: &Value) -> usize {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => theirs
            .iter()
            .map(|(key, value)| {
                let path = format!("{path}.{key}");
                // drbdsetup's way to say that it does not know.
                if key == "estimated-seconds-to-finish" && *value == 987_654_321 {
                    assert_eq!(ours.get(key), None, "{path}");
                    return 1;
                }
                let ours = ours
                    .get(key)
                    .unwrap_or_else(|| panic!("{path}: no {value}"));
                contains(&path, value, ours)
            })
            .sum(),
        (Value::Array(theirs), Value::Array(ours)) => {
            let key = |v: &Value| {
                ["volume", "volume_nr", "peer-node-id", "_peer_node_id"]
                    .iter()
                    .find_map(|k| v[*k].as_u64())
            };
            // `show` leaves out a volume whose settings are all defaults.
            let fewer = path.ends_with("volumes");
            assert!(
                theirs.len() == ours.len() || fewer,
                "{path}: {theirs:?} {ours:?}"
            );
            let same = |(at, their): (usize, &Value)| match key(their) {
                Some(key_of_theirs) => {
                    let ours = ours.iter().find(|o| key(o) == Some(key_of_theirs));
                    contains(path, their, ours.unwrap())
                }
                None => contains(path, their, &ours[at]),
            };
            theirs.iter().enumerate().map(same).sum()
        }
        // Rounded to two digits.
        (Value::Number(t), Value::Number(o)) if t.is_f64() || o.is_f64() => {
            let (t, o) = (t.as_f64().unwrap(), o.as_f64().unwrap());
            assert!((t - o).abs() < 0.011, "{path}: {t} {o}");
            1
        }
        // A volume that is meant to have no disk: the word comes after its
        // settings under the same key, and hides them.
        (Value::String(none), Value::Object(ours)) if none == "none" => {
            assert!(path.ends_with(".disk"), "{path}");
            assert_eq!(ours["diskless"], "yes", "{path}");
            1
        }
        _ => {
            assert_eq!(theirs, ours, "{path}");
            1
        }
    }
}
