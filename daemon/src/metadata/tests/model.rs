//! Random histories against a table in memory.

use super::*;
use crate::metadata::CommitError;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<(u8, u64, u64)>),
    Checkpoint,
    Reopen,
    Close,
    PowerCut(u64),
    FailFlush,
    BreakLog(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0u8..4, 0u64..64, 1u64..12);
    prop_oneof![
        8 => prop::collection::vec(change, 0..5).prop_map(Step::Commit),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => Just(Step::Close),
        2 => any::<u64>().prop_map(Step::PowerCut),
        1 => Just(Step::FailFlush),
        1 => (0usize..2).prop_map(Step::BreakLog),
    ]
}

/// Slots are never used twice, as the allocator guarantees.
fn change(store: &Store<RamDisk>, next: &mut u64, (kind, at, len): (u8, u64, u64)) -> Change {
    let (start, len) = (Sector(at * 5), Sectors(len));
    *next += 2;
    let slot = store.geometry().slots + Sectors(8 * (*next - 2));
    match kind {
        0 => Change::Clear { start, len },
        1 => Change::Retire { slot, len },
        2 => Change::Set(Extent { start, len, kind: Kind::PoisonData }),
        _ => Change::Set(Extent { start, len, kind: Kind::Mapped(slot) }),
    }
}

/// Ends with the commit durable or, where the spare gave up, with the store reopened.
fn settle(
    mut store: Store<RamDisk>,
    mut done: Result<crate::metadata::Durable, CommitError>,
    changes: &[Change],
    model: &mut Table,
) -> Store<RamDisk> {
    loop {
        match done {
            Ok(_) => {
                *model = table_with(model, changes);
                return store;
            }
            Err(CommitError::Unknown { .. }) => done = store.restate(),
            Err(CommitError::Full(_)) => {
                done = store.checkpoint().and_then(|()| store.commit(changes));
            }
            Err(e) => panic!("{e}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn the_spare_holds_what_was_acknowledged(steps in prop::collection::vec(step(), 1..40)) {
        let mut store = open(formatted());
        let mut model = Table::default();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Commit(some) => {
                    let changes: Vec<_> = some.into_iter().map(|c| change(&store, &mut next, c)).collect();
                    let done = store.commit(&changes);
                    store = settle(store, done, &changes, &mut model);
                }
                // A failed flush: the old log serves on.
                Step::Checkpoint => prop_assert!(matches!(
                    store.checkpoint(),
                    Ok(()) | Err(CommitError::Checkpoint(_))
                )),
                Step::Reopen => {
                    store.disk.flushes.clear();
                    store = open(store.into_disk());
                }
                Step::Close => {
                    store.disk.flushes.clear();
                    store = open(store.close().unwrap());
                }
                Step::PowerCut(seed) => {
                    store.disk.flushes.clear();
                    store.disk.bad_writes.clear();
                    let mut disk = None;
                    store.disk.settle();
                    let changes = [change(&store, &mut next, (3, seed % 64, 3))];
                    let done = store.commit(&changes);
                    let before = model.clone();
                    store = settle(store, done, &changes, &mut model);
                    let mut left = seed % 5;
                    store.disk.crashes(seed, 3, |state, _| {
                        if left == 0 {
                            disk = Some(state);
                        }
                        left = left.wrapping_sub(1);
                    });
                    if let Some(disk) = disk {
                        store = open(disk);
                        prop_assert!(store.table() == &before || store.table() == &model);
                        model = store.table().clone();
                    }
                }
                Step::FailFlush => store.disk.flushes = vec![false],
                Step::BreakLog(mirror) => {
                    let at = store.geometry().log_block(mirror, store.head);
                    store.disk.bad_writes = block_of(at).collect();
                }
            }
            prop_assert_eq!(store.table(), &model);
        }
        store.disk.flushes.clear();
        let last = open(store.into_disk());
        prop_assert_eq!(last.table(), &model);
    }
}
