//! The daemon's JSON for people.

use std::io::{self, Write};

use serde_json::Value;

pub fn device(out: &mut dyn Write, device: &Value) -> io::Result<()> {
    let name = device["name"].as_str().unwrap_or("?");
    if let Some(error) = device["error"].as_str() {
        return writeln!(out, "{name}: not served: {error}");
    }
    writeln!(out, "{name}: {}", device["phase"].as_str().unwrap_or("?"))?;
    let spare = &device["spare"];
    writeln!(
        out,
        "  {} extents: {} sectors mapped, {} poisoned; spare {} of {} sectors used; commit {}",
        device["extents"],
        device["mapped"],
        device["poisoned"],
        spare["used"],
        spare["total"],
        device["commit"],
    )?;
    for (key, words) in [
        ("commit_unknown", "a commit may or may not be durable, and is restated"),
        ("breaker_open", "an error storm: nothing is mapped until the disk answers again"),
    ] {
        if device[key] == Value::Bool(true) {
            writeln!(out, "  {words}")?;
        }
    }
    match &device["kernel"] {
        Value::Null => writeln!(out, "  the mapped device is not there")?,
        kernel => {
            let counters = &kernel["counters"];
            writeln!(
                out,
                "  {} bios held; {} faults, {} expired, {} passed up, {} refused",
                counters["held-bios"],
                counters["faults"],
                counters["expired"],
                counters["passed"],
                counters["refused"],
            )?;
            let flags = kernel["flags"].as_array().into_iter().flatten();
            let flags: Vec<&str> = flags.filter_map(Value::as_str).collect();
            writeln!(out, "  kernel: {}", flags.join(", "))?;
        }
    }
    for (_, text) in device["alarms"].as_object().into_iter().flatten() {
        writeln!(out, "  alarm: {}", text.as_str().unwrap_or("?"))?;
    }
    for fault in device["faults"].as_array().into_iter().flatten() {
        let pinned = if fault["flags"]["pinned"] == true { ", pinned" } else { "" };
        writeln!(
            out,
            "  fence {}: {} sectors at {}: {}{pinned}",
            fault["id"],
            fault["len"],
            fault["start"],
            fault["step"].as_str().unwrap_or("?"),
        )?;
    }
    for note in device["notes"].as_array().into_iter().flatten() {
        writeln!(out, "  {:>8} s: {}", note["at"]["secs"], note["what"])?;
    }
    Ok(())
}

/// `start len kind slot`; what has no place on the mapped device or the spare shows a dash.
pub fn extent(out: &mut dyn Write, extent: &Value) -> io::Result<()> {
    let (kind, slot) = match &extent["kind"] {
        Value::Object(kind) => match kind.iter().next() {
            Some((kind, slot)) => (kind.as_str(), slot),
            None => ("?", &Value::Null),
        },
        kind => (kind.as_str().unwrap_or("?"), &extent["slot"]),
    };
    let number = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        value => value.to_string(),
    };
    writeln!(
        out,
        "{:>12} {:>6} {kind:<12} {:>12}",
        number(&extent["start"]),
        number(&extent["len"]),
        number(slot)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(show: impl Fn(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        show(&mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn extents_of_every_kind_are_lines_of_four_words() {
        use dmremap_policyd::table::{Extent, Kind};
        use dmremap_policyd::units::{Sector, Sectors, Slot};
        let words = |kind| {
            let value = json!(Extent { start: Sector(8), len: Sectors(2), kind });
            let line = shown(|out| extent(out, &value));
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words(Kind::Mapped(Slot(64))), ["8", "2", "mapped", "64"]);
        assert_eq!(words(Kind::PoisonSlot(Slot(64))), ["8", "2", "poison-slot", "64"]);
        assert_eq!(words(Kind::PoisonData), ["8", "2", "poison-data", "-"]);
        let retired = json!({ "kind": "retired", "slot": 72, "len": 8 });
        let line = shown(|out| extent(out, &retired));
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["-", "8", "retired", "72"]);
    }

    #[test]
    fn a_device_that_is_not_served_says_why() {
        let value = json!({ "name": "d", "error": "no disk" });
        assert_eq!(shown(|out| device(out, &value)), "d: not served: no disk\n");
    }
}
