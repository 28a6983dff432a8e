//! As much of Markdown as the pages use: headings, links, code in backticks, and fenced blocks, which have none of these.

use std::collections::BTreeSet;

/// What is looked at of a page.
#[derive(Debug, Default)]
pub struct Page {
    /// Text of each heading.
    pub headings: Vec<String>,
    /// Target of each link.
    pub links: Vec<String>,
    /// Text of each code span.
    pub code: Vec<String>,
    /// Words that are neither code nor links, without what punctuation is around them.
    pub words: Vec<String>,
}

impl Page {
    /// Reads a page.
    pub fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut is_in_fence = false;
        for line in text.lines() {
            if line.starts_with("```") {
                is_in_fence = !is_in_fence;
                continue;
            }
            // Four spaces make code as well.
            if is_in_fence || line.starts_with("    ") {
                continue;
            }
            if line.starts_with('#') {
                page.headings.push(line.trim_start_matches('#').trim().to_owned());
            }
            page.code.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
            let plain = line.split('`').step_by(2).flat_map(str::split_whitespace).filter(|word| !word.contains("]("));
            let bare = plain.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/').to_owned());
            page.words.extend(bare.filter(|word| !word.is_empty()));
            for rest in line.split("](").skip(1) {
                page.links.extend(rest.split_once(')').map(|(target, _)| target.to_owned()));
            }
        }
        assert!(!is_in_fence, "a fenced block has no end");
        page
    }

    /// Anchors of all headings.
    pub fn anchors(&self) -> BTreeSet<String> {
        self.headings.iter().map(|heading| slug(heading)).collect()
    }
}

/// The anchor of a heading, as GitHub makes it: lower case, hyphens for spaces, no punctuation.
pub fn slug(heading: &str) -> String {
    let letters = heading.to_lowercase();
    let kept = letters.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
