//! The shipped module, compiled for user space under sanitizers, against the simulated kernel: one random step after
//! the other, with every answer, every lookup and everything that can be listed compared after each.

mod choice;

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use choice::{Choice, Maker};
use dmremap_conformance::side::differences;
use dmremap_conformance::{Config, Side, Simulated, State, Step};
use dmremap_kmod_host::Host;
use dmremap_protocol::Counters;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

const HOLD_MS: u64 = 2000;

/// The state of both.
fn both(module: &mut Host, model: &mut Simulated, step: &Step) -> Result<State> {
    let found = module.step(step)?;
    let expected = model.step(step)?;
    ensure!(found == expected, "{step:?}: the module says{}", differences(&found, &expected));
    let (found, mut expected) = (module.state()?, model.state()?);
    // The numbers of the devices are not what is compared.
    expected.instance.dm_dev = found.instance.dm_dev;
    expected.instance.data_dev = found.instance.data_dev;
    expected.instance.spare_dev = found.instance.spare_dev;
    ensure!(found == expected, "after {step:?} the module has{}", differences(&found, &expected));
    Ok(found)
}

fn play(config: &Config, choices: &[Choice]) -> Result<Counters> {
    let (mut module, mut model) = (Host::new(config)?, Simulated::new(config));
    let mut maker = Maker::new(config);
    let mut steps = Vec::new();
    let mut next = choices.iter();
    let mut rest = choice::epilogue(HOLD_MS).into_iter();
    let mut state = model.state()?;
    while let Some(step) = next.next().map(|c| maker.step(c, &state)).or_else(|| rest.next()) {
        steps.push(format!("\n  {step:?}"));
        state = both(&mut module, &mut model, &step)
            .with_context(|| format!("after the steps{}", steps.concat()))?;
    }
    module.finish()?;
    Ok(state.instance.counters)
}

#[test]
fn the_module_does_what_the_model_does() {
    let config = ProptestConfig {
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    };
    let held = prop_oneof![Just(3), Just(1024)];
    let begun = proptest::option::weighted(0.8, choice::parts());
    let random = proptest::collection::vec(choice::random(), 1..80);
    let runs = (any::<[bool; 3]>(), held, begun, random);
    let happened = RefCell::new([0; 12]);
    let ended = TestRunner::new(config).run(
        &runs,
        |([queue_unowned, says_medium, emulated_fua], max_held, begun, random)| {
            let begun = begun.into_iter().flat_map(choice::served);
            let choices: Vec<_> = begun.chain(random.iter().flat_map(choice::expand)).collect();
            let config = Config {
                sectors: choice::SECTORS,
                spare: 256,
                hold_ms: HOLD_MS,
                ready_ms: 1500,
                max_held,
                queue_unowned,
                says_medium,
                emulated_fua,
            };
            let c = play(&config, &choices)
                .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            let all = [
                c.faults,
                c.installs,
                c.releases,
                c.fails,
                c.expired,
                c.refused,
                c.unowned,
                c.poison_reads,
                c.redone,
                c.data_flush_fails,
                c.spare_flush_fails,
                c.extents,
            ];
            happened.borrow_mut().iter_mut().zip(all).for_each(|(sum, n)| *sum += n);
            Ok(())
        },
    );
    match ended {
        Ok(()) => {}
        // The steps say more than the choices that led to them.
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        Err(error) => panic!("{error}"),
    }
    // Otherwise little was compared.
    let happened = happened.into_inner();
    assert!(happened.iter().all(|&sum| sum > 0), "something never happened: {happened:?}");
    println!("faults to extents: {happened:?}");
}
