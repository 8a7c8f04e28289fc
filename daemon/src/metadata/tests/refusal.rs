//! Spares that are not this device's, or not in a state to be used: each is refused in words that
//! say what to do.

use super::*;
use crate::metadata::format::format_with;
use crate::metadata::layout::{COPIES, Geometry};
use crate::metadata::{CommitError, Disk, Error, repair};

fn refusal(disk: RamDisk, expect: &Expect) -> String {
    Store::open(disk, expect).err().expect("it was not refused").to_string()
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is not in: {text}");
    }
}

#[test]
fn other_disks_and_other_shapes() {
    let disk = formatted();
    let other_data = Identity::new(Sectors(MAPPED)).with(Fact::Wwn, "naa.other");
    let text = refusal(disk.clone(), &Expect { data: Some(other_data), ..expect() });
    says(&text, &["data disk", "WWN is \"naa.other\"", "naa.5000c500a1", "check the paths"]);
    let cloned = Identity::new(Sectors(SPARE)).with(Fact::Serial, "SPARE2");
    says(&refusal(disk.clone(), &Expect { spare: cloned, ..expect() }), &["spare", "SPARE2"]);
    let swapped = Expect { data: Some(spare_disk()), spare: data_disk(), ..expect() };
    says(&refusal(disk.clone(), &swapped), &["its size is"]);
    let nameless = Expect { spare: Identity::new(Sectors(SPARE)), ..expect() };
    says(&refusal(disk.clone(), &nameless), &["none of the facts"]);
    let label = Expect { label: Some(Uuid([2; 16])), ..expect() };
    says(&refusal(disk.clone(), &label), &["01010101-", "expected 02020202-"]);
    let longer = Expect { mapped: Some(Sectors(MAPPED + 8)), ..expect() };
    says(&refusal(disk.clone(), &longer), &["mapped device is 1048584 sectors", "1048576"]);
    let blocks = Expect { block: Some(Sectors(8)), ..expect() };
    says(&refusal(disk, &blocks), &["logical block is 8"]);
}

#[test]
fn disks_without_a_label_truncated_or_with_larger_blocks() {
    says(&refusal(RamDisk::new(SPARE), &expect()), &["no dm-remap label", "format it"]);
    says(&refusal(RamDisk::new(16), &expect()), &["no dm-remap label"]);
    let mut short = formatted();
    short.resize(SPARE - 8);
    says(&refusal(short, &expect()), &["truncated", "use the whole disk"]);
    let mut coarse = formatted();
    coarse.physical = 8192;
    let text = repair(&mut coarse, &expect()).unwrap_err().to_string();
    says(&text, &["physical blocks of 16"]);
    says(&refusal(coarse, &expect()), &["physical blocks of 16", "as it was when formatted"]);
    let mut odd = RamDisk::new(SPARE);
    odd.physical = 3 * 4096;
    let error = format(&mut odd, &request()).unwrap_err();
    says(&error.to_string(), &["12288 bytes", "use another disk"]);
    let with_blocks = |bytes| {
        let mut large = RamDisk::new(16 * SPARE);
        large.physical = bytes;
        format(&mut large, &request())
    };
    assert_eq!(with_blocks(512 << 10).unwrap().geometry.unit, Sectors(1024));
    let error = with_blocks(1 << 20).unwrap_err();
    says(&error.to_string(), &["1048576 bytes", "use another disk"]);
}

#[test]
fn two_labels_or_two_histories_on_one_spare() {
    let mut disk = formatted();
    let mut other = RamDisk::new(SPARE);
    format(&mut other, &Format { label: Uuid([9; 16]), ..request() }).unwrap();
    disk.put(COPIES[3], &other.bytes(COPIES[3], 4096));
    says(&refusal(disk, &expect()), &["two labels", "01010101-", "09090909-", "see check"]);

    let store = used();
    let mut one = store.disk.clone();
    let ours = store.close().unwrap();
    let (store, _) = Store::open(&mut one, &expect()).unwrap();
    let number = store.superblock().number;
    drop(store);
    let mut mixed = ours;
    while Superblock::decode(Slot(0), &mixed.bytes(Slot(0), 4096)).unwrap().number < number {
        mixed = Store::open(mixed, &expect()).unwrap().0.close().unwrap();
    }
    one = Store::open(one, &expect()).unwrap().0.close().unwrap();
    let numbers =
        |d: &RamDisk| Superblock::decode(Slot(0), &d.bytes(Slot(0), 4096)).unwrap().number;
    assert_ne!(numbers(&one), 0);
    while numbers(&one) != numbers(&mixed) {
        let behind = if numbers(&one) < numbers(&mixed) { &mut one } else { &mut mixed };
        let (mut store, _) = Store::open(behind.clone(), &expect()).unwrap();
        store.checkpoint().unwrap();
        *behind = store.into_disk();
    }
    one.put(COPIES[1], &mixed.bytes(COPIES[1], 4096));
    says(&refusal(one, &expect()), &["differ", "two hosts wrote"]);
}

#[test]
fn unknown_features() {
    let (mut disk, _) =
        Store::open(formatted(), &expect()).map(|(s, d)| (s.into_disk(), d)).unwrap();
    let sound = Superblock::decode(Slot(0), &disk.bytes(Slot(0), 4096)).unwrap();
    let with = |disk: &mut RamDisk, superblock: &Superblock| {
        COPIES.iter().for_each(|&at| disk.put(at, &superblock.encode(at)));
        disk.settle();
    };
    with(&mut disk, &Superblock { read_only: 4, ..sound.clone() });
    let (mut store, _) = Store::open(&mut disk, &expect()).unwrap();
    let refused = store.commit(&[]).unwrap_err().to_string();
    says(&refused, &["bits 0x4", "newer dm-remap"]);
    assert!(store.checkpoint().is_err());
    assert!(store.close().is_err());
    assert_eq!(disk.written(), 0, "an unknown read-only feature: nothing is written");
    with(&mut disk, &Superblock { incompatible: 8, ..sound });
    says(&refusal(disk, &expect()), &["bits 0x8", "newer dm-remap"]);
}

#[test]
fn formatting_needs_room_identities_and_an_unlabelled_disk() {
    let mut disk = formatted();
    says(&format(&mut disk, &request()).unwrap_err().to_string(), &["already", "--force"]);
    assert!(format(&mut disk, &Format { force: true, ..request() }).is_ok());
    let weak = Format { spare: Identity::new(Sectors(SPARE)), ..request() };
    let mut fresh = RamDisk::new(SPARE);
    says(&format(&mut fresh, &weak).unwrap_err().to_string(), &["spare", "--weak-identity"]);
    assert!(format(&mut fresh, &Format { weak_identity: true, ..weak }).is_ok());
    let error = format(&mut RamDisk::new(4096), &request()).unwrap_err();
    assert!(matches!(error, Error::TooSmall { .. }), "{error}");
    let mut bad = RamDisk::new(SPARE);
    bad.break_block(COPIES[2]);
    says(&format(&mut bad, &request()).unwrap_err().to_string(), &["cannot write", "sector 2048"]);
    assert_eq!(bad.size(), Sectors(SPARE));
    // The log of the second is wiped in more than one piece.
    for spare in [SPARE, 20 * SPARE] {
        let mut disk = RamDisk::new(spare);
        let request =
            Format { spare: Identity::new(Sectors(spare)), weak_identity: true, ..request() };
        let geometry = format(&mut disk, &request).unwrap().geometry;
        for mirror in 0..2 {
            for position in [0, u64::from(geometry.log_blocks) - 1] {
                let mut bad = RamDisk::new(spare);
                bad.break_block(geometry.log_block(mirror, position));
                says(&format(&mut bad, &request).unwrap_err().to_string(), &["cannot write"]);
            }
        }
    }
}

fn formatted_geometry() -> Geometry {
    Superblock::decode(Slot(0), &formatted().bytes(Slot(0), 4096)).unwrap().geometry
}

#[test]
fn formatting_leaves_nothing_in_the_logs() {
    let mut disk = RamDisk::new(SPARE);
    disk.put(Slot(0), &vec![0xff; (SPARE * 512) as usize]);
    format(&mut disk, &request()).unwrap();
    let geometry = formatted_geometry();
    for mirror in 0..2 {
        let log = disk.bytes(geometry.log_block(mirror, 0), geometry.log_blocks as usize * 4096);
        assert!(log.iter().all(|&byte| byte == 0));
    }
}

/// As many extents as a checkpoint has room for, and one more.
#[test]
fn a_table_that_the_spare_has_no_room_for() {
    let room = formatted_geometry().max_entries() as u64;
    let table = |extents: u64| {
        let mut table = Table::default();
        (0..extents).for_each(|n| table.apply(&poison(n)));
        table
    };
    let formatted = |extents| format_with(&mut RamDisk::new(SPARE), &request(), &table(extents), 1);
    let full = formatted(room).unwrap();
    assert_eq!(u64::from(full.checkpoint.entries), room);
    assert_eq!(full.checkpoint.blocks, full.geometry.checkpoint_blocks);
    let error = formatted(room + 1).unwrap_err();
    says(&error.to_string(), &[&format!("{} extents", room + 1), &format!("room for {room}")]);
}

#[test]
fn changes_outside_their_bounds_are_not_written() {
    let mut store = used();
    store.disk.settle();
    let superblock = store.superblock().clone();
    let beyond = Extent { start: Sector(MAPPED - 4), len: Sectors(8), kind: Kind::PoisonData };
    let slots = superblock.geometry.slots;
    let label = Extent { start: Sector(0), len: Sectors(8), kind: Kind::Mapped(Slot(0)) };
    let empty = Change::Clear { start: Sector(0), len: Sectors(0) };
    let retire = Change::Retire { slot: Slot(slots.0 - 8), len: Sectors(16) };
    for change in [Change::Set(beyond), Change::Set(label), empty, retire] {
        assert!(store.commit(&[change]).is_err(), "{change:?}");
    }
    let many = vec![poison(1); store.max_changes() + 1];
    assert!(store.commit(&many).is_err());
    assert_eq!(store.disk.written(), 0);
}

/// Sets leave room for what must always be possible: clearing, and retiring a slot that failed.
#[test]
fn a_full_table_takes_no_more_sets() {
    let mut store = open(formatted());
    let room = store.geometry().max_entries() - 128;
    // The worst of a set: itself, the rest of what it cuts, two ends to retire, and its change.
    for n in 0..room as u64 - 3 {
        let _ = store.commit(&[poison(n)]).unwrap();
        if store.wants_checkpoint() {
            store.checkpoint().unwrap();
        }
    }
    let full = CommitError::Full("no room for more extents").to_string();
    assert_eq!(store.commit(&[poison(9999)]).unwrap_err().to_string(), full);
    let slots = store.geometry().slots;
    let slot = |n: u64| Change::Retire { slot: slots + Sectors(16 * n), len: Sectors(8) };
    let retired: Vec<Change> = (0..128 + 4).map(slot).collect();
    assert_eq!(store.admit(&retired).unwrap_err().to_string(), full);
    store.admit(&retired[1..]).unwrap();
    for some in retired[1..].chunks(store.max_changes()) {
        let _ = store.commit(some).unwrap();
    }
}

#[test]
fn a_log_without_checkpoints_takes_three_quarters_and_wants_one_from_a_half_on() {
    let mut store = open(formatted());
    let blocks = u64::from(store.geometry().log_blocks);
    for n in 0..blocks * 3 / 4 {
        assert_eq!(store.wants_checkpoint(), n > blocks / 2, "{n} of {blocks}");
        let _ = store.commit(&[poison(n)]).unwrap();
    }
    let full = CommitError::Full("the log").to_string();
    assert_eq!(store.commit(&[poison(0)]).unwrap_err().to_string(), full);
    store.checkpoint().unwrap();
    let most: Vec<Change> = (0..store.max_changes() as u64).map(poison).collect();
    let _ = store.commit(&most).unwrap();
}

#[test]
fn a_checkpoint_that_neither_mirror_takes_names_the_sector() {
    let mut store = used();
    let area = 1 - store.superblock().checkpoint.area;
    let at = [0, 1].map(|mirror| store.geometry().checkpoint_area(mirror, area));
    at.iter().for_each(|&at| store.disk.break_block(at));
    let text = store.checkpoint().unwrap_err().to_string();
    says(&text, &[&format!("sector {}: ", at[1])]);
}

/// Each is sealed as a good one would be.
#[test]
fn a_superblock_that_contradicts_itself_is_damaged() {
    let good = open(formatted()).superblock().clone();
    for live in [[true, true], [true, false], [false, true]] {
        let one = Superblock { live, ..good.clone() };
        assert_eq!(Superblock::decode(Slot(0), &one.encode(Slot(0))).unwrap(), one);
    }
    type Change = fn(&mut Superblock);
    let changes: [(Change, &str); 10] = [
        (|s| s.geometry.log_blocks = 1, "a log of 1 blocks"),
        (|s| s.checkpoint.number = 1 << 63, "a counter"),
        (|s| s.checkpoint.position = 1 << 63, "a counter"),
        (|s| s.checkpoint.area = 2, "in area 2"),
        (|s| s.checkpoint.blocks = 0, "a checkpoint of 0 blocks"),
        (|s| s.checkpoint.blocks = s.geometry.checkpoint_blocks + 1, "blocks in area"),
        (|s| s.checkpoint.entries = 1 << 20, "entries in"),
        (|s| s.checkpoint.sequence = s.sequence + 1, "beyond the log"),
        (|s| s.live = [false; 2], "no live mirror"),
        (|s| (s.block, s.mapped) = (Sectors(8), Sectors(12)), "12 sectors in blocks of 8"),
    ];
    for (change, words) in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let flaw = Superblock::decode(Slot(0), &bad.encode(Slot(0))).unwrap_err();
        says(&flaw.to_string(), &[words]);
    }
}

/// Before anything is written: what cannot be read now may be there later.
#[test]
fn older_than_the_table_in_use() {
    let store = used();
    let commit = store.durable().sequence();
    let mut disk = store.into_disk();
    let writes = disk.written();
    let in_use = |commit| Expect { in_use: Some(commit), ..expect() };
    let refused = Store::open(&mut disk, &in_use(commit + 1)).err().unwrap();
    let ends = format!("ends at commit {commit} and the table in use at {}", commit + 1);
    says(&refused.to_string(), &[&ends, "put the newer one"]);
    assert_eq!(disk.written(), writes);
    assert!(Store::open(&mut disk, &in_use(commit)).is_ok());
}
