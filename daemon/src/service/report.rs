//! What the operator is told, as JSON.

use std::collections::BTreeMap;

use dmremap_protocol::layout::Wire;
use dmremap_protocol::uapi::InstanceFlags;
use dmremap_protocol::{Counters, InstanceInfo};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::Sender;

use super::control::Answer;
use super::device::Handle;
use crate::core::Snapshot;

/// Extents in one part of an answer.
const PART: usize = 4096;

#[derive(Serialize)]
struct Served {
    name: String,
    #[serde(flatten)]
    policy: Snapshot,
    /// What the kernel said last; none while there is no instance.
    kernel: Option<Value>,
}

/// One part a device, each with its `name`, and `error` where it is not served.
pub async fn status(devices: Vec<Handle>, failed: BTreeMap<String, String>, to: Sender<Answer>) {
    for device in devices {
        let part = match device.status().await {
            Ok((policy, kernel)) => {
                let kernel = kernel.map(|info| kernel_view(&info));
                serde_json::to_value(Served { name: device.name.clone(), policy, kernel })
            }
            Err(_) => Ok(json!({ "name": device.name, "error": "its driver has ended" })),
        };
        if to.send(answer(part)).await.is_err() {
            return;
        }
    }
    for (name, error) in failed {
        if to.send(Answer::Part(json!({ "name": name, "error": error }))).await.is_err() {
            return;
        }
    }
    let _ = to.send(Answer::Done).await;
}

/// Parts are arrays: first of extents, in rising order, then of retired slots, as objects.
pub async fn list(device: Handle, to: Sender<Answer>) {
    let Ok(table) = device.table().await else {
        let _ = to.send(Answer::Error("its driver has ended".to_owned())).await;
        return;
    };
    let retired =
        table.retired().map(|(slot, len)| json!({ "kind": "retired", "slot": slot, "len": len }));
    let mut all = table.extents().map(|extent| json!(extent)).chain(retired);
    loop {
        // A value is many times its extent, and all memory is locked.
        let part: Vec<Value> = all.by_ref().take(PART).collect();
        if part.is_empty() {
            break;
        }
        if to.send(Answer::Part(part.into())).await.is_err() {
            return;
        }
    }
    let _ = to.send(Answer::Done).await;
}

fn answer(part: serde_json::Result<Value>) -> Answer {
    part.map_or_else(|error| Answer::Error(error.to_string()), Answer::Part)
}

fn kernel_view(info: &InstanceInfo) -> Value {
    let flags = [
        ("ready", InstanceFlags::READY),
        ("queue-if-no-daemon", InstanceFlags::QUEUE),
        ("data-flush-failed", InstanceFlags::DATA_FLUSH_BAD),
        ("spare-flush-failed", InstanceFlags::SPARE_FLUSH_BAD),
    ];
    let flags: Vec<&str> = flags
        .into_iter()
        .filter(|&(_, flag)| info.flags.contains(flag))
        .map(|(name, _)| name)
        .collect();
    let mut values = Vec::new();
    info.counters.put(&mut values);
    let values = values.chunks(u64::SIZE).map(u64::get);
    let names = Counters::FIELDS.iter().map(|(name, _)| name.replace('_', "-"));
    let counters: Map<String, Value> = names.zip(values.map(Value::from)).collect();
    json!({
        "instance": info.instance,
        "sectors": info.sectors,
        "block": info.block,
        "flags": flags,
        "generation": info.generation,
        "commit": info.commit,
        "owner": info.owner,
        "counters": counters,
    })
}
