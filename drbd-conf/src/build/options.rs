//! Options: names, values, and their old forms.

use super::Builder;
use super::words::{Checked, Seen, Words, after, bad_value, unknown};
use crate::error::Problem;
use crate::lint;
use crate::model::{After, Sections, Setting, Value};
use crate::schema::{self, Kind as OptionKind, Section, Unit};
use crate::syntax::Statement;

impl Builder {
    /// Handles a section that a resource and `common` both have; `None` if it is something else.
    pub(super) fn section(
        &mut self,
        st: &Statement<'_>,
        sections: &mut Sections,
        seen: &mut Seen,
    ) -> Option<Checked<()>> {
        let section = match st.keyword() {
            "options" => Section::Options,
            "disk" if st.words.len() == 1 => Section::Disk,
            "net" => Section::Net,
            "startup" => Section::Startup,
            "handlers" => Section::Handlers,
            "proxy" => Section::Proxy,
            "syncer" => return Some(self.syncer(st, sections, seen)),
            "protocol" => return Some(self.protocol(st, sections, seen)),
            _ => return None,
        };
        Some((|| {
            let block = Words::of(st).block()?;
            let what = if section == Section::Disk {
                "disk {}"
            } else {
                section.keyword()
            };
            seen.once(what, st.span())?;
            self.settings(section, block, sections);
            Ok(())
        })())
    }

    /// `protocol C;` in front of 8.4 stood in the resource itself.
    pub(super) fn protocol(
        &mut self,
        st: &Statement<'_>,
        sections: &mut Sections,
        seen: &mut Seen,
    ) -> Checked<()> {
        seen.once("protocol", st.span())?;
        let setting = self.setting(Section::Net, st)?;
        sections.net.extend(setting);
        Ok(())
    }

    pub(super) fn syncer(
        &mut self,
        st: &Statement<'_>,
        sections: &mut Sections,
        seen: &mut Seen,
    ) -> Checked<()> {
        let block = Words::of(st).block()?;
        seen.once("syncer", st.span())?;
        let mut now = Vec::new();
        for st in block {
            let resolved = schema::find_syncer(st.keyword())
                .ok_or_else(|| unknown(st, "an option of the old syncer section"));
            let Some(resolved) = self.check(resolved) else {
                continue;
            };
            let result = self.value(resolved, st);
            let Some(setting) = self.check(result) else {
                continue;
            };
            let section = setting.section;
            now.push(format!(
                "{} {{ {} {}; }}",
                section.keyword(),
                setting.name,
                setting.raw()
            ));
            sections.get_mut(section).push(setting);
        }
        let text = "\"syncer\" is a section of DRBD before 8.4; the tools of DRBD 9 refuse it";
        let problem = Problem::warning(st.span(), "syncer", text);
        self.warnings.push(if now.is_empty() {
            problem.remedy("remove the section")
        } else {
            problem.remedy(format!("write {} instead", now.join(" ")))
        });
        Ok(())
    }

    /// Reads a section into `sections`, going on after an error.
    pub(super) fn settings(
        &mut self,
        section: Section,
        block: &[Statement<'_>],
        sections: &mut Sections,
    ) {
        if !block.is_empty() {
            sections.get_mut(section).list(block.len());
        }
        for st in block {
            let result = match (section, st.keyword()) {
                (Section::Startup, "become-primary-on") => {
                    sections.become_primary_on = Vec::new();
                    sections.become_primary_at = Some(st.span());
                    let mut w = Words::of(st);
                    loop {
                        match w.expect("a host name") {
                            Ok(name) => sections.become_primary_on.push(name.text.to_string()),
                            Err(problem) => break Err(problem),
                        }
                        if w.peek().is_none() {
                            break w.end();
                        }
                    }
                    .inspect(|()| self.warnings.push(lint::become_primary_on(st.span())))
                }
                (Section::Startup, "stacked-timeouts") => {
                    sections.stacked_timeouts = true;
                    Words::of(st).end()
                }
                (Section::Proxy, "plugin") => plugin(st).map(|lines| {
                    sections.proxy_plugins = lines;
                }),
                (Section::Net, "discard-my-data" | "tentative") => {
                    let text = format!(
                        "\"{}\" is not a setting but a wish at connect",
                        st.keyword()
                    );
                    Err(Problem::error(st.span(), "not-a-setting", text))
                }
                _ => self
                    .setting(section, st)
                    .map(|s| sections.get_mut(section).extend(s)),
            };
            self.check(result);
        }
        let settings = sections.get_mut(section).all();
        for (i, s) in settings.iter().enumerate() {
            if settings[..i]
                .iter()
                .any(|t| t.name == s.name && t.span.file == s.span.file)
                && s.name != "protocol"
            {
                let text = format!("\"{}\" is set more than once; the last one counts", s.name);
                self.warnings
                    .push(Problem::warning(s.span, "duplicate-option", text));
            }
        }
    }

    /// One option. `None` if it is accepted and means nothing any more.
    pub(super) fn setting(
        &mut self,
        section: Section,
        st: &Statement<'_>,
    ) -> Checked<Option<Setting>> {
        let name = st.keyword();
        let Some(resolved) = schema::find(section, name) else {
            let text = format!("unknown option \"{name}\" in {}", section.keyword());
            let problem = Problem::error(st.span(), "unknown-option", text);
            return Err(match schema::similar(section, name) {
                Some(like) => problem.remedy(format!("\"{like}\" is similar")),
                None => problem,
            });
        };
        if matches!(resolved.spec.kind, OptionKind::Ignored) {
            let text = format!("\"{name}\" has no meaning any more and is ignored");
            self.warnings
                .push(Problem::warning(st.span(), "deprecated-option", text).remedy("remove it"));
            return Ok(None);
        }
        if resolved.renamed {
            let new = resolved.spec.name;
            let now = if resolved.negated {
                format!("{new} no")
            } else {
                new.to_owned()
            };
            let text = format!("\"{name}\" is an old name");
            self.warnings.push(
                Problem::warning(st.span(), "deprecated-option", text)
                    .remedy(format!("write \"{now}\" instead")),
            );
        }
        self.value(resolved, st).map(Some)
    }

    /// Reads and checks the value of an option.
    pub(super) fn value(
        &mut self,
        resolved: schema::Resolved,
        st: &Statement<'_>,
    ) -> Checked<Setting> {
        let spec = resolved.spec;
        let mut w = Words::of(st);
        let done = |value: Value, written: &str| Setting {
            section: spec.section,
            name: spec.name,
            value,
            written: written.as_bytes().into(),
            span: st.span(),
        };
        if resolved.negated {
            w.end()?;
            return Ok(done(Value::Flag(false), ""));
        }
        if matches!(spec.kind, OptionKind::Flag) && w.peek().is_none() {
            w.end()?;
            return Ok(done(Value::Flag(true), ""));
        }
        let token = match spec.kind {
            OptionKind::Flag => w.expect("\"yes\", \"no\" or \";\"")?,
            _ => w.value_of(spec.name)?,
        };
        let text = &*token.text;
        let value = match spec.kind {
            OptionKind::Flag | OptionKind::Ignored => match text {
                "yes" => Value::Flag(true),
                "no" => Value::Flag(false),
                _ => return Err(bad_value(token, "bad-value", "\"yes\", \"no\" or \";\"")),
            },
            OptionKind::Number { min, max, unit } => {
                let Some(value) = schema::parse_number(text, unit) else {
                    let what = format!("a number for {}", spec.name);
                    return Err(bad_value(token, "bad-value", &what));
                };
                if !(min..=max).contains(&value) {
                    let unit = match unit {
                        Unit::Sectors => " sectors",
                        Unit::Kib => " KiB",
                        _ => "",
                    };
                    let text = format!(
                        "{} {text} is out of range; {min} to {max}{unit} are possible",
                        spec.name
                    );
                    return Err(Problem::error(token.span, "out-of-range", text));
                }
                Value::Number { value, unit }
            }
            OptionKind::Words(words) => {
                let is = |word: &&&str| match spec.name {
                    "protocol" => word.eq_ignore_ascii_case(text),
                    _ => **word == text,
                };
                let Some(word) = words.iter().find(is) else {
                    let what = format!("one of {}", words.join(", "));
                    return Err(bad_value(token, "bad-value", &what));
                };
                Value::Word(word)
            }
            OptionKind::NumberOrWord(words) => {
                let word = words.iter().find(|w| **w == text);
                match (schema::parse_number(text, Unit::One), word) {
                    (Some(value @ 1..=32), _) => Value::Number {
                        value,
                        unit: Unit::One,
                    },
                    (_, Some(word)) => Value::Word(word),
                    _ => {
                        let words = words.join(", ");
                        let what = format!("a number from 1 to 32 or one of {words}");
                        return Err(bad_value(token, "bad-value", &what));
                    }
                }
            }
            OptionKind::Text(max) => {
                if text.len() > max {
                    let text =
                        format!("{} has {} bytes; {max} are possible", spec.name, text.len());
                    return Err(Problem::error(token.span, "out-of-range", text));
                }
                Value::Text(text.into())
            }
            OptionKind::Device => {
                let after = after(token)?;
                self.refers |= matches!(after, After::Volume { .. });
                Value::After(after)
            }
        };
        w.end()?;
        let written = match value {
            Value::Number { .. } | Value::After(_) => text,
            _ => "",
        };
        Ok(done(value, written))
    }
}

/// `plugin { WORD…; … }`: each line is for the proxy, as it is.
fn plugin(st: &Statement<'_>) -> Checked<Vec<String>> {
    let line = |st: &Statement<'_>| {
        let words: Vec<&str> = st.words.iter().map(|w| &*w.text).collect();
        Words {
            statement: st,
            at: words.len(),
        }
        .end()?;
        Ok(words.join(" "))
    };
    Words::of(st).block()?.iter().map(line).collect()
}
