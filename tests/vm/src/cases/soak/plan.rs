//! What is done when: drawn from the seed alone, so that it can be repeated.

use dmremap_disks::server::Side;

use crate::guest::load::Random;

/// Something that happens under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Sectors of the data disk go bad, at so many places.
    Bad { places: u64, side: Side },
    /// Slots of the spare cannot be written any more, at so many places.
    BadSlots { places: u64 },
    /// kill -9, and another daemon after a while; meanwhile perhaps a suspend that pushes back what is held.
    Kill { down_ms: u64, suspend: bool },
    /// SIGSTOP, and SIGCONT after a while; meanwhile perhaps a suspend that pushes back what is held.
    Stop { down_ms: u64, suspend: bool },
    /// The daemon reads a changed file.
    Reload { value: u64 },
    /// Suspended with a flush, and resumed.
    Suspend,
    /// Another table in its place.
    Table { value: u64 },
}

/// The acts of a round, each after so many acknowledgements from the one before.
pub type Round = Vec<(u64, Act)>;

/// In a boot with an odd number the daemon lives from beginning to end, so that what it keeps can be compared.
fn kills(boot: u64) -> bool {
    boot % 2 == 0
}

pub fn round(seed: u64, boot: u64, round: u64) -> Round {
    let mut random = Random::new(seed ^ boot << 40 ^ round << 20);
    let mut acts: Vec<Act> = vec![bad(&mut random)];
    for _ in 0..2 + random.below(3) {
        acts.push(match random.below(9) {
            0 | 1 => bad(&mut random),
            2 => Act::BadSlots { places: 1 + random.below(3) },
            3 | 4 if kills(boot) => {
                Act::Kill { down_ms: random.below(1500), suspend: random.below(3) == 0 }
            }
            3..=5 => Act::Stop { down_ms: random.below(500), suspend: random.below(2) == 0 },
            6 => Act::Reload { value: 1 + random.below(99) },
            7 => Act::Suspend,
            _ => Act::Table { value: 900 + random.below(100) },
        });
    }
    acts.into_iter().map(|act| (random.below(40), act)).collect()
}

fn bad(random: &mut Random) -> Act {
    let side = if random.below(4) == 0 { Side::Both } else { Side::Write };
    Act::Bad { places: 2 + random.below(5), side }
}

/// So many acknowledgements after the beginning of a boot's last round comes the cut.
pub fn cut_after(seed: u64, boot: u64) -> u64 {
    40 + Random::new(seed ^ boot << 40 ^ 1 << 60).below(200)
}

/// For what an act of that number draws when it is done.
pub fn dice(seed: u64, boot: u64, round: u64, number: u64) -> Random {
    Random::new(seed.rotate_left(17) ^ boot << 40 ^ round << 20 ^ number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::mem::discriminant;

    use super::*;

    #[test]
    fn a_seed_says_all_and_everything_comes() {
        let all = |seed| (0..20).flat_map(move |n| round(seed, n % 2, n)).collect::<Vec<_>>();
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        let kinds: BTreeSet<String> =
            all(7).iter().map(|(_, act)| format!("{:?}", discriminant(act))).collect();
        assert_eq!(kinds.len(), 7);
    }

    #[test]
    fn in_every_other_boot_the_daemon_lives() {
        let killed = |boot| {
            (0..40)
                .any(|n| round(3, boot, n).iter().any(|(_, act)| matches!(act, Act::Kill { .. })))
        };
        assert!(killed(0) && !killed(1) && killed(2) && !killed(3));
    }
}
