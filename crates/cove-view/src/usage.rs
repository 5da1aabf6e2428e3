//! What a container uses, read from the engine's `GET /containers/ID/stats`.

use crate::time;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ts_rs::TS;

/// What a container uses at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// When it was read.
    #[ts(type = "number")]
    pub at_ms: i64,
    /// Share of one processor: 2.0 are two processors at full load.
    pub cpu: f64,
    /// Memory in bytes, without the page cache.
    #[ts(type = "number")]
    pub memory: u64,
    /// Bytes of memory that it may have: its own limit, or all of the machine's; 0 where the engine does not say.
    #[ts(type = "number")]
    pub memory_limit: u64,
    /// Bytes received from networks since it started.
    #[ts(type = "number")]
    pub received: u64,
    /// Bytes sent to networks since it started.
    #[ts(type = "number")]
    pub sent: u64,
    /// Bytes read from disks since it started.
    #[ts(type = "number")]
    pub read: u64,
    /// Bytes written to disks since it started.
    #[ts(type = "number")]
    pub written: u64,
    /// How many processes it has.
    #[ts(type = "number")]
    pub processes: u64,
}

impl Usage {
    /// Reads one reading of the engine's stream. The first of a stream has nothing before it, and so says nothing of
    /// the processor; nothing of a container that does not run.
    pub fn read(stats: &Value) -> Option<Self> {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let (now, before) = (&stats["cpu_stats"], &stats["precpu_stats"]);
        let system = count(&now["system_cpu_usage"]);
        if system == 0 {
            return None;
        }
        let between = |key: fn(&Value) -> &Value| count(key(now)).saturating_sub(count(key(before)));
        let used = between(|cpu| &cpu["cpu_usage"]["total_usage"]);
        let elapsed = between(|cpu| &cpu["system_cpu_usage"]);
        let cpus = count(&now["online_cpus"]).max(1);
        let memory = &stats["memory_stats"];
        let cache = count(&memory["stats"]["inactive_file"]);
        let networks = |key: &str| -> u64 {
            let each = stats["networks"]
                .as_object()
                .into_iter()
                .flat_map(|all| all.values());
            each.map(|network| count(&network[key]))
                .fold(0, u64::saturating_add)
        };
        let blocks = |operation: &str| -> u64 {
            let entries = stats["blkio_stats"]["io_service_bytes_recursive"].as_array();
            entries
                .into_iter()
                .flatten()
                .filter(|entry| {
                    entry["op"]
                        .as_str()
                        .is_some_and(|op| op.eq_ignore_ascii_case(operation))
                })
                .map(|entry| count(&entry["value"]))
                .fold(0, u64::saturating_add)
        };
        // The clock counts every processor, so that the share of all of them is turned into one's.
        #[expect(
            clippy::cast_precision_loss,
            reason = "nanoseconds of a second or so, as a share that a person looks at"
        )]
        let cpu = if elapsed == 0 || count(&before["system_cpu_usage"]) == 0 {
            0.0
        } else {
            used as f64 / elapsed as f64 * cpus as f64
        };
        Some(Self {
            at_ms: stats["read"].as_str().and_then(time::read_ms).unwrap_or(0),
            cpu,
            memory: count(&memory["usage"]).saturating_sub(cache),
            memory_limit: count(&memory["limit"]),
            received: networks("rx_bytes"),
            sent: networks("tx_bytes"),
            read: blocks("read"),
            written: blocks("write"),
            processes: count(&stats["pids_stats"]["current"]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn half_of_two_processors_is_one_processor() {
        let usage = Usage::read(&json!({
            "read": "2026-03-01T12:00:00Z",
            "cpu_stats": {"cpu_usage": {"total_usage": 3_000}, "system_cpu_usage": 20_000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 2_000}, "system_cpu_usage": 18_000},
            "memory_stats": {"usage": 500, "limit": 4096, "stats": {"inactive_file": 200}},
            "networks": {"eth0": {"rx_bytes": 3, "tx_bytes": 4}, "eth1": {"rx_bytes": 5}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 7}, {"op": "Write", "value": 9}]},
            "pids_stats": {"current": 2},
        }))
        .expect("it runs");
        assert!((usage.cpu - 1.0).abs() < 1e-9, "{usage:?}");
        assert_eq!((usage.memory, usage.memory_limit), (300, 4096));
        assert_eq!((usage.received, usage.sent), (8, 4));
        assert_eq!((usage.read, usage.written, usage.processes), (7, 9, 2));
    }

    #[test]
    fn a_first_reading_says_nothing_of_the_processor_and_a_stopped_container_nothing_at_all() {
        let first = json!({"cpu_stats": {"cpu_usage": {"total_usage": 9}, "system_cpu_usage": 10}});
        assert_eq!(Usage::read(&first).map(|usage| usage.cpu.to_bits()), Some(0));
        assert_eq!(Usage::read(&json!({"cpu_stats": {}})), None);
        assert_eq!(Usage::read(&json!(null)), None);
    }
}
