//! Which replicas make room: idle ones whose keep-alive has run out first, then the least recently used. A busy one only
//! for who is overdue, and with its last answer.

use super::scene::{Occupant, Place, Scene};
use crate::records::ReplicaState;

/// Somebody who has just had an answer often asks again within this time: such a replica goes after all that have
/// been idle for longer.
const RECENT_NS: i64 = 2_000_000_000;

/// Smaller is missed less: how much it runs; whether it should stay, was used just now, is to stay for ever; when it was
/// used last, when it would go by itself; and a name, so that everybody chooses alike.
pub(super) type VictimRank<'a> = (u32, bool, bool, bool, i64, i64, &'a str, &'a str);

pub(super) fn rank<'a>(occupant: &Occupant<'a>, now_ns: i64) -> VictimRank<'a> {
    let replica = &occupant.replica;
    let should_stay = replica.expires_at_ns > now_ns;
    let is_recent = now_ns.saturating_sub(replica.last_used_ns) < RECENT_NS;
    let is_forever = replica.expires_at_ns == i64::MAX;
    (
        replica.slots_used,
        should_stay,
        is_recent,
        is_forever,
        replica.last_used_ns,
        replica.expires_at_ns,
        occupant.worker,
        occupant.replica_key,
    )
}

/// Everybody who could go, least missed first.
pub(super) fn candidates<'s, 'a>(scene: &'s Scene<'a>) -> Vec<&'s Occupant<'a>> {
    let demand = scene.demand;
    let is_spared = |occupant: &Occupant| demand.spare.iter().any(|key| key == occupant.replica_key);
    let may_go = |occupant: &&Occupant| {
        is_ready(scene, occupant) && !is_spared(occupant) && (is_idle(occupant) || demand.is_overdue)
    };
    let mut candidates: Vec<&Occupant> = scene.occupants().filter(may_go).collect();
    candidates.sort_by_key(|occupant| rank(occupant, scene.now_ns()));
    candidates
}

/// Who must go so that the demanded model can be loaded at `place`; `None` when it cannot, or not yet.
pub(super) fn choose<'s, 'a>(
    scene: &'s Scene<'a>,
    candidates: &[&'s Occupant<'a>],
    place: &Place<'s>,
) -> Option<Vec<&'s Occupant<'a>>> {
    let mut chosen = Vec::new();
    if let Some(small) = place.too_small {
        chosen.push(*candidates.iter().find(|occupant| is_same(occupant, small))?);
    }
    free_memory(scene, candidates, place, &mut chosen)?;
    free_permits(scene, candidates, &mut chosen)?;
    Some(chosen)
}

fn free_memory<'s, 'a>(
    scene: &'s Scene<'a>,
    candidates: &[&'s Occupant<'a>],
    place: &Place<'s>,
    chosen: &mut Vec<&'s Occupant<'a>>,
) -> Option<()> {
    let needed = place.memory_missing(scene.demand.size_bytes);
    if needed == 0 {
        return Some(());
    }
    let size = |occupant: &Occupant| occupant.replica.size_bytes;
    let leaving =
        scene.occupants_of(place.id).iter().filter(|occupant| is_leaving(occupant)).map(size).sum::<u64>();
    let mut freed = leaving + chosen.iter().map(|occupant| size(occupant)).sum::<u64>();
    for occupant in candidates.iter().filter(|occupant| occupant.worker == place.id) {
        if freed >= needed {
            break;
        }
        if !chosen.iter().any(|other| is_same(occupant, other)) {
            freed += size(occupant);
            chosen.push(*occupant);
        }
    }
    // With nobody to evict it is a matter of waiting for those who leave.
    (freed >= needed && !chosen.is_empty()).then_some(())
}

fn free_permits<'s, 'a>(
    scene: &'s Scene<'a>,
    candidates: &[&'s Occupant<'a>],
    chosen: &mut Vec<&'s Occupant<'a>>,
) -> Option<()> {
    let needed = scene.permits_to_free();
    if needed == 0 {
        return Some(());
    }
    let mut freed = scene.permits_leaving() + chosen.iter().filter(|occupant| occupant.has_permit).count();
    for occupant in candidates.iter().filter(|occupant| occupant.has_permit) {
        if freed >= needed {
            break;
        }
        if !chosen.iter().any(|other| is_same(occupant, other)) {
            freed += 1;
            chosen.push(*occupant);
        }
    }
    (freed >= needed && !chosen.is_empty()).then_some(())
}

/// Whether it can be told to go.
fn is_ready(scene: &Scene, occupant: &Occupant) -> bool {
    // Without word from the worker itself nobody knows whether it is busy.
    occupant.is_live && occupant.replica.state == ReplicaState::Ready && scene.is_reachable(occupant.worker)
}

fn is_idle(occupant: &Occupant) -> bool {
    occupant.replica.slots_used == 0
}

fn is_leaving(occupant: &Occupant) -> bool {
    occupant.replica.state == ReplicaState::Unloading
}

fn is_same(a: &Occupant, b: &Occupant) -> bool {
    (a.worker, a.replica_key) == (b.worker, b.replica_key)
}
