//! Prefers nodes that have the pod's images, and thus their compiled code.

use crate::{NodeInfo, PodInfo, PreparedScore, Score, Snapshot};

/// The share of the pod's images that are on the node, each scaled by the share of the nodes that have it.
///
/// As in Kubernetes the scaling keeps a new image from drawing all its pods to the first node that has it. Unlike there
/// the size does not count: what is saved is the compilation, and modules are far below Kubernetes' 23 MB threshold.
pub struct ImageLocality;

/// Images and what each adds to the score, in hundredths of a point.
struct Images<'p>(Vec<(&'p str, u32)>);

impl Score for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn prepare<'p>(&self, pod: &'p PodInfo, snapshot: &'p Snapshot) -> Option<Box<dyn PreparedScore + 'p>> {
        let nodes = snapshot.nodes().len().max(1);
        let worth = |image: &'p String| {
            let points = 10_000 * snapshot.nodes_with_image(image) / nodes / pod.images.len();
            (image.as_str(), u32::try_from(points).unwrap_or(0))
        };
        let images: Vec<_> = pod.images.iter().map(worth).filter(|(_, points)| *points > 0).collect();
        // On all nodes: no difference between them.
        let known = |image: &String| snapshot.nodes_with_image(image) == nodes;
        if images.is_empty() || pod.images.iter().all(known) { None } else { Some(Box::new(Images(images))) }
    }
}

impl PreparedScore for Images<'_> {
    fn score(&self, node: &NodeInfo) -> u32 {
        let points: u32 = self.0.iter().filter(|(image, _)| node.images.contains(*image)).map(|(_, p)| p).sum();
        (points / 100).min(100)
    }
}
