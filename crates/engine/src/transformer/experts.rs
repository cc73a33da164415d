//! The body of a feed-forward branch that is a mixture of experts: each row goes through the few bodies that a
//! router picks for it. The rows of one expert are gathered, run together and added back by weight. A row's sum is
//! in the order of the experts, so it does not depend on what else is in the batch.

use super::feed_forward::{self, FeedForward};
use crate::{
    compute::Compute,
    kernels::{
        route,
        rows::{Forms, Rows},
    },
    linear::Linear,
    weights::Backend,
};

pub(crate) struct Experts<B: Backend = Compute> {
    pub router: B::Linear,
    /// How many a row goes through.
    pub used: usize,
    pub is_normalised: bool,
    pub experts: Vec<FeedForward<B>>,
    pub shared: Option<SharedExpert<B>>,
}

/// What every row goes through, as much as its gate is open; without a gate it is.
pub(crate) struct SharedExpert<B: Backend = Compute> {
    pub body: FeedForward<B>,
    pub gate: Option<Vec<f32>>,
}

/// Room for a step, used again by the next branch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// [n, experts].
    scores: Vec<f32>,
    /// By expert, then by row.
    routes: Vec<Route>,
    best: Vec<(u32, f32)>,
    gathered: Rows,
    result: Vec<f32>,
    body: feed_forward::Buffers,
}

/// A row goes through an expert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub expert: u32,
    pub row: u32,
    pub weight: f32,
}

impl Experts {
    /// The forms in which the maps that every row goes through want the input of the branch.
    pub fn forms(&self) -> Forms {
        let shared = self.shared.as_ref().map_or(Forms::default(), |shared| shared.body.forms());
        shared.and(Linear::forms([&self.router]))
    }

    /// `input`: [n, width], and the same as plain `values`, to `out`: [n, width].
    pub(super) fn forward(
        &self,
        compute: &Compute,
        buffers: &mut Buffers,
        (input, values): (&Rows, &[f32]),
        out: &mut Vec<f32>,
    ) {
        let width = self.router.cols();
        Linear::forward(compute, input, &mut [(&self.router, &mut buffers.scores)]);
        let Buffers { scores, routes, best, .. } = buffers;
        self.route(scores, best, routes);
        match &self.shared {
            Some(SharedExpert { body, gate }) => {
                body.forward(compute, &mut buffers.body, (input, out)); // [n, width]
                if let Some(gate) = gate {
                    route::gate_rows(out, values, gate);
                }
            }
            None => {
                out.clear();
                out.resize(values.len(), 0.0);
            }
        }
        let Buffers { routes, gathered, result, body, .. } = buffers;
        for routes in routes.chunk_by(|one, next| one.expert == next.expert) {
            let expert = &self.experts[routes[0].expert as usize];
            let fill = |row: usize, to: &mut [f32]| to.copy_from_slice(&values[part(&routes[row], width)]);
            gathered.fill((&compute.pool, compute.cpu), (routes.len(), width), expert.forms(), fill);
            expert.forward(compute, body, (gathered, result)); // [routes, width]
            for (route, result) in routes.iter().zip(result.chunks_exact(width)) {
                let row = out[part(route, width)].iter_mut();
                row.zip(result).for_each(|(value, result)| *value += route.weight * result);
            }
        }
    }
}

impl<B: Backend> Experts<B> {
    /// By expert, then by row. `scores`, [n, experts], are used up.
    pub fn route(&self, scores: &mut [f32], best: &mut Vec<(u32, f32)>, routes: &mut Vec<Route>) {
        routes.clear();
        for (row, scores) in (0..).zip(scores.chunks_exact_mut(self.experts.len())) {
            route::choose(scores, self.used, self.is_normalised, best);
            routes.extend(best.iter().map(|&(expert, weight)| Route { expert, row, weight }));
        }
        routes.sort_unstable_by_key(|route| (route.expert, route.row));
    }
}

fn part(route: &Route, width: usize) -> std::ops::Range<usize> {
    let start = route.row as usize * width;
    start..start + width
}
