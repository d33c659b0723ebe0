//! Names in serialized form: a string if they are UTF-8, else an array of
//! bytes. Nothing is lost either way.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Name<'a> {
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Name<'a> {
    fn new(name: &'a OsStr) -> Self {
        match name.to_str() {
            Some(text) => Self::Text(text.into()),
            None => Self::Bytes(name.as_bytes().into()),
        }
    }

    fn into_os_string(self) -> OsString {
        match self {
            Self::Text(text) => text.into_owned().into(),
            Self::Bytes(bytes) => OsString::from_vec(bytes.into_owned()),
        }
    }
}

pub(crate) fn serialize<S: Serializer>(name: impl AsRef<OsStr>, to: S) -> Result<S::Ok, S::Error> {
    Name::new(name.as_ref()).serialize(to)
}

pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: From<OsString>,
    D: Deserializer<'de>,
{
    Ok(Name::deserialize(from)?.into_os_string().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::path::PathBuf;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Sample {
        #[serde(with = "crate::text")]
        name: OsString,
        #[serde(with = "crate::text")]
        path: PathBuf,
    }

    #[test]
    fn text_or_bytes() {
        for (name, json) in [
            (OsString::from("caf\u{e9}"), "\"caf\u{e9}\""),
            (OsString::from_vec(b"caf\xe9".to_vec()), "[99,97,102,233]"),
        ] {
            let sample = Sample {
                name,
                path: PathBuf::from("/dev/x"),
            };
            let text = serde_json::to_string(&sample).unwrap();
            assert!(text.contains(json), "{text}");
            assert_eq!(serde_json::from_str::<Sample>(&text).unwrap(), sample);
        }
    }
}
