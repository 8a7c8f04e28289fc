use super::*;

const DOCUMENTED: &str = include_str!("../../../config/dmremap.toml");

const GOOD: &str = r#"[daemon]
control_socket = "/run/x.sock"
[policy]
read_retries = 5
[[device]]
name = "data1"
data = "/dev/a"
spare = "/dev/b"
max_held_kib = 128
[[device]]
name = "data2"
data = "/dev/c"
spare = "/dev/d"
"#;

fn parse(text: &str) -> Result<Config, Diagnostic> {
    Config::parse(Path::new("d.toml"), text)
}

#[test]
fn the_documented_file_says_the_defaults() {
    let config = parse(DOCUMENTED).expect("the documented file is valid");
    assert_eq!(config.daemon, Daemon::default());
    assert_eq!(config.policy, Policy::default());
    assert!(config.device.is_empty());
    // An empty file means the same, and so the documented one may not leave out a table.
    for table in ["[daemon]", "[policy]"] {
        assert!(DOCUMENTED.contains(&format!("\n{table}\n")), "{table}");
    }
    let keys = serde_json::to_value(Policy::default()).expect("plain numbers");
    for key in keys.as_object().expect("a struct").keys() {
        assert!(DOCUMENTED.contains(&format!("\n{key} = ")), "{key}");
    }
    // What `#key = value` shows is a device with each of its options.
    let shown: String = DOCUMENTED
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |all, line| all + line + "\n");
    let config = parse(&shown).expect("the example device is valid");
    assert_eq!(config.device.len(), 1);
    assert_eq!(config.device[0].queue_options().count(), 4);
}

#[test]
fn a_device_needs_three_keys_only() {
    let config = parse(GOOD).expect("valid");
    assert_eq!(config.policy.read_retries, 5);
    let options = |name| config.device(name).expect("there").queue_options().collect::<Vec<_>>();
    assert_eq!(options("data1"), [("max_held_kib", 128)]);
    assert_eq!(options("data2"), []);
    assert!(config.device("data3").is_none());
}

/// Replaces `from` in the good file and expects an error at `place` with these words.
#[track_caller]
fn refuses(from: &str, to: &str, place: &str, words: &str) {
    assert!(GOOD.contains(from), "{from}");
    let error = parse(&GOOD.replacen(from, to, 1)).expect_err("to be refused");
    let shown = error.to_string();
    assert!(shown.starts_with(&format!("d.toml:{place}: ")), "{shown}");
    assert!(shown.contains(words), "{shown}");
    assert!(!error.remedy.is_empty());
}

#[test]
fn wrong_keys_and_types_name_their_place() {
    refuses("read_retries", "read_retrys", "4:1", "unknown field `read_retrys`");
    refuses("max_held_kib", "max_held_kb", "9:1", "unknown field `max_held_kb`");
    refuses("[policy]", "[politics]", "3:2", "unknown field `politics`");
    refuses("read_retries = 5", "read_retries = \"5\"", "4:16", "invalid type");
    refuses("read_retries = 5", "read_retries = -1", "4:16", "invalid value");
    refuses("read_retries = 5", "read_retries = 101", "4:1", "read_retries is 101: want 0 to 100");
    refuses("max_held_kib = 128", "max_held_kib = 0", "9:16", "from 1 to 4194304");
    refuses("name = \"data1\"", "name = 1", "6:8", "invalid type");
    refuses("spare = \"/dev/b\"\n", "", "5:1", "missing field `spare`");
    refuses("[policy]", "[[policy]]", "3:1", "invalid type: sequence");
    refuses("[daemon]", "[daemon", "1:8", "");
    refuses("[[device]]", "[device]", "10:3", "duplicate key");
    refuses("name = \"data1\"", "name = \"data1\"\nname = \"z\"", "7:1", "duplicate");
    refuses("/run/x.sock", "x.sock", "2:1", "no place for a socket");
}

/// The least and the most of each number.
const LIMITS: &[(&str, i64, i64)] = &[
    ("read_retries", 0, 100),
    ("place_attempts", 1, 100),
    ("breaker_faults", 1, 1_000_000),
    ("breaker_window", 1, 86_400),
    ("breaker_pause", 10, 3_600_000),
    ("spare_low_percent", 0, 100),
    ("hold_deadline_ms", 1, 119_000),
    ("ready_deadline_ms", 1, 119_000),
    ("max_held_bios", 1, 65_536),
    ("max_held_kib", 1, 4_194_304),
];
/// What each text may not be.
const TEXTS: &[(&str, &str)] =
    &[("control_socket", "x.sock"), ("name", "a/b"), ("data", "sda"), ("spare", "")];

#[test]
fn every_documented_key_has_a_type_and_bounds() {
    // The example device is in force, too.
    let lines: Vec<&str> = DOCUMENTED
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
        .collect();
    let keys = lines.iter().filter_map(|line| Some(line.split_once(" = ")?.0));
    let keys: Vec<&str> = keys.filter(|key| !key.starts_with('#')).collect();
    let with = |key: &str, value: &str| {
        let begins = format!("{key} = ");
        let line = lines.iter().position(|line| line.starts_with(&begins)).expect("documented");
        let mut lines = lines.clone();
        let set = format!("{begins}{value}");
        lines[line] = &set;
        (line + 1, parse(&lines.join("\n")).map(drop).map_err(|error| error.to_string()))
    };
    let refused = |key: &str, value: &str, words: &str| {
        let (line, result) = with(key, value);
        let said = result.expect_err(value);
        assert!(said.starts_with(&format!("d.toml:{line}:")), "{key} = {value}: {said}");
        assert!(said.contains(words), "{key} = {value}: {said}");
    };
    for key in &keys {
        let number = LIMITS.iter().find(|limits| limits.0 == *key);
        let text = TEXTS.iter().find(|text| text.0 == *key);
        match (number, text) {
            (Some((_, least, most)), None) => {
                assert_eq!(with(key, &least.to_string()).1, Ok(()), "{key}");
                assert_eq!(with(key, &most.to_string()).1, Ok(()), "{key}");
                refused(key, &(least - 1).to_string(), "");
                refused(key, &(most + 1).to_string(), &format!("{least} to {most}"));
                refused(key, "\"5\"", "invalid type: string");
                refused(key, "5.0", "invalid type: floating point");
            }
            (None, Some((_, wrong))) => {
                refused(key, &format!("{wrong:?}"), "");
                refused(key, "5", "invalid type: integer");
            }
            _ => panic!("{key} has no row"),
        }
    }
    assert_eq!(keys.len(), LIMITS.len() + TEXTS.len());
}

#[test]
fn values_without_names_are_no_section() {
    for text in ["policy = [3, 4, 64, 60, 1000, 10]", "device = [[\"d\", \"/dev/a\", \"/dev/b\"]]"]
    {
        let error = parse(text).expect_err("values by position").to_string();
        assert!(error.contains("invalid type: sequence, expected a section"), "{error}");
    }
}

#[test]
fn wrong_values_duplicates_and_overlaps_name_their_place() {
    refuses("\"data1\"", "\"\"", "6:8", "it is empty");
    refuses("\"data1\"", "\"control\"", "6:8", "reserved");
    refuses("\"data1\"", "\"a/b\"", "6:8", "not allowed");
    refuses("\"data1\"", &format!("{:?}", "n".repeat(128)), "6:8", "too long");
    refuses("\"/dev/a\"", "\"sda\"", "7:8", "data is not an absolute path");
    refuses("data2", "data1", "11:8", "name \"data1\" is already on line 6");
    refuses("/dev/c", "/dev/a", "12:8", "/dev/a is already the data of \"data1\"");
    refuses("/dev/d", "/dev/b", "13:9", "/dev/b is already the spare of \"data1\"");
    refuses("/dev/c", "/dev/b", "12:8", "/dev/b is already the spare of \"data1\"");
    refuses("/dev/b", "/dev/a", "8:9", "/dev/a is already the data of \"data1\"");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/dmremap.toml")).expect_err("absent");
    assert!(error.to_string().starts_with("/nowhere/dmremap.toml:1:1: cannot be read: No such"));
}
