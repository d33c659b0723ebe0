//! Configuration files of containers: nothing may be lost, and a change
//! changes what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lxc_rs::ConfigFile;

fuzz_target!(|data: &[u8]| {
    let mut file = ConfigFile::parse(data);
    assert_eq!(file.to_bytes(), data);
    let keys: Vec<String> = file.items().map(|item| item.key.to_owned()).collect();
    for key in keys.iter().take(4) {
        let _ = file.get(key);
        file.set(key, "a value");
        assert_eq!(
            file.get(key).and_then(|v| v.to_str()),
            Some("a value"),
            "{key}"
        );
        file.push(key, "another");
        assert_eq!(
            file.get(key).and_then(|v| v.to_str()),
            Some("another"),
            "{key}"
        );
        let again = ConfigFile::parse(&file.to_bytes());
        assert_eq!(again.get(key), file.get(key), "{key}");
        file.remove(key);
        assert_eq!(file.get(key), None, "{key}");
    }
});
