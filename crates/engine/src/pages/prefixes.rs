//! Which page holds which prefix: a chain of full pages, each known by the page before it and its own tokens.
//!
//! A link is named by a number that is never used again instead of by a hash, and the map compares what it finds, so
//! two prefixes can never be taken for one another, however their hashes collide.

use std::collections::{BTreeMap, HashMap};

use super::{PAGE_TOKENS, PageId};

/// The name of a published page; the default stands before the first page of all sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Link(u64);

/// What is in a page: the tokens, after all those of the pages before it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Content {
    before: Link,
    tokens: [u32; PAGE_TOKENS],
}

#[derive(Debug)]
struct Published {
    content: Content,
    link: Link,
    /// When the last table left it.
    idle_since: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Prefixes {
    /// Of each page, what is published about it.
    published: Vec<Option<Published>>,
    by_content: HashMap<Content, PageId>,
    /// Pages that no table holds, by the time at which that began.
    idle: BTreeMap<u64, PageId>,
    /// Counts up with every use: links and times.
    next: u64,
}

// === impl Prefixes ===

impl Prefixes {
    pub fn new(total: usize) -> Prefixes {
        Prefixes { published: (0..total).map(|_| None).collect(), next: 1, ..Prefixes::default() }
    }

    /// How many pages no table holds.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The page that holds `tokens` after the page `before`.
    pub fn find(&self, before: Link, tokens: &[u32]) -> Option<(PageId, Link)> {
        let content = Content { before, tokens: tokens.try_into().ok()? };
        self.by_content.get(&content).map(|&page| (page, self.link(page)))
    }

    /// The page that holds `tokens` after the page `before`: the one that is known, or `page` from now on.
    pub fn publish(&mut self, before: Link, tokens: &[u32], page: PageId) -> (PageId, Link) {
        if let Some(known) = self.find(before, tokens) {
            return known;
        }
        let tokens = tokens.try_into().expect("a page's worth of tokens");
        let content = Content { before, tokens };
        let link = Link(self.tick());
        self.by_content.insert(content.clone(), page);
        self.published[page as usize] = Some(Published { content, link, idle_since: None });
        (page, link)
    }

    /// The name of a published page.
    pub fn link(&self, page: PageId) -> Link {
        self.published[page as usize].as_ref().map_or(Link::default(), |published| published.link)
    }

    /// A table holds the page.
    pub fn wake(&mut self, page: PageId) {
        let published = self.published[page as usize].as_mut();
        if let Some(since) = published.and_then(|published| published.idle_since.take()) {
            self.idle.remove(&since);
        }
    }

    /// No table holds the page any more. False when it was never published.
    pub fn rest(&mut self, page: PageId) -> bool {
        let now = self.tick();
        let Some(published) = &mut self.published[page as usize] else { return false };
        published.idle_since = Some(now);
        self.idle.insert(now, page);
        true
    }

    /// Forgets the page that has been idle longest, which there must be. Whoever holds a page holds those before it
    /// too, so that one goes before those that lead to it.
    pub fn evict(&mut self) -> PageId {
        let (_, page) = self.idle.pop_first().expect("the caller counted the idle pages");
        if let Some(published) = self.published[page as usize].take() {
            self.by_content.remove(&published.content);
        }
        page
    }

    fn tick(&mut self) -> u64 {
        let now = self.next;
        self.next += 1;
        now
    }

    /// Whether every published page can still be reached from the beginning.
    #[cfg(test)]
    pub fn is_whole(&self) -> bool {
        let links: std::collections::HashSet<Link> =
            self.published.iter().flatten().map(|published| published.link).collect();
        self.published.iter().flatten().all(|published| {
            published.content.before == Link::default() || links.contains(&published.content.before)
        })
    }
}
