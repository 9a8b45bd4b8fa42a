//! Prefers nodes that have the pod's images, and thus their compiled code.

use crate::{NodeInfo, PreparedScore, Score, Snapshot, subject::Subject};

/// The share of the pod's images that are on the node, each scaled by the share of the nodes that have it.
///
/// As in Kubernetes the scaling keeps a new image from drawing all its pods to the first node that has it. Unlike there
/// the size does not count: what is saved is the compilation, and modules are far below Kubernetes' 23 MB threshold.
pub struct ImageLocality;

/// Images and what each adds to the score, in hundredths of a point.
struct Images<'p>(Vec<(&'p str, i64)>);

impl Score for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn prepare<'p>(
        &self,
        subject: &Subject<'p>,
        snapshot: &'p Snapshot,
        _feasible: &[u32],
    ) -> Option<Box<dyn PreparedScore + 'p>> {
        let nodes = snapshot.nodes().len().max(1);
        let images = &subject.pod.images;
        // On all nodes: no difference between them.
        if images.iter().all(|image| snapshot.nodes_with_image(image) == nodes) {
            return None;
        }
        let worth = |image: &'p String| {
            let points = 10_000 * snapshot.nodes_with_image(image) / nodes / images.len();
            (image.as_str(), i64::try_from(points).unwrap_or(0))
        };
        let known: Vec<_> = images.iter().map(worth).filter(|(_, points)| *points > 0).collect();
        if known.is_empty() { None } else { Some(Box::new(Images(known))) }
    }
}

impl PreparedScore for Images<'_> {
    fn score(&self, _slot: u32, node: &NodeInfo) -> i64 {
        let points: i64 = self.0.iter().filter(|(image, _)| node.images.contains(*image)).map(|(_, p)| p).sum();
        (points / 100).min(100)
    }
}
