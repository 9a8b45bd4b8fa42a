//! kubelet's `/configz`: the settings of the agent, as far as a kubelet has the same.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kubelet/config/v1beta1/types.go`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::AgentConfig;

/// `KubeletConfiguration`.
pub(super) fn settings(config: &AgentConfig) -> Value {
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let mut settings = json!({
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": true,
        // There is no port: all goes through the API server.
        "port": 0,
        "readOnlyPort": 0,
        "enableDebuggingHandlers": true, "enableProfilingHandler": false, "enableDebugFlagsHandler": false,
        "enableSystemLogHandler": false, "enableSystemLogQuery": false,
        "address": config.node_ip, "podCIDR": config.pod_cidr.map(|cidr| cidr.to_string()), "maxPods": config.pods_max,
        "clusterDomain": "cluster.local",
        "containerLogMaxSize": format!("{}Mi", config.log_file_bytes_max >> 20),
        "containerLogMaxFiles": config.log_files_max,
        "serializeImagePulls": config.image_pulls_max == 1, "maxParallelImagePulls": config.image_pulls_max,
        "imageGCHighThresholdPercent": config.image_gc.high_percent,
        "imageGCLowThresholdPercent": config.image_gc.low_percent,
        "imageMinimumGCAge": seconds(config.image_gc.age_min),
        "evictionHard": {
            "memory.available": format!("{}Mi", config.eviction_memory_bytes >> 20),
            "nodefs.available": format!("{}Mi", config.eviction_disk_bytes >> 20),
        },
        "evictionMaxPodGracePeriod": config.eviction_grace_max.as_secs(),
        "systemReserved": { "memory": format!("{}Mi", config.memory_reserved_bytes >> 20) },
        "nodeLeaseDurationSeconds": config.lease_renew_every.as_secs() * 4,
        "shutdownGracePeriod": seconds(config.drain_timeout),
        "cpuCFSQuota": true, "cpuCFSQuotaPeriod": "100ms", "failSwapOn": false,
    });
    if let Some((bytes, grace)) = config.eviction_memory_soft {
        settings["evictionSoft"] = json!({ "memory.available": format!("{}Mi", bytes >> 20) });
        settings["evictionSoftGracePeriod"] = json!({ "memory.available": seconds(grace) });
    }
    if let Some(dir) = &config.static_pods_dir {
        settings["staticPodPath"] = json!(dir);
        settings["fileCheckFrequency"] = seconds(config.static_pods_every).into();
    }
    json!({ "kubeletconfig": settings })
}
