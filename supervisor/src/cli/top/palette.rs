//! How the view looks: by role, so that no other module names a colour.

use std::borrow::Cow;

use ratatui::{
    style::{Color, Modifier, Style},
    text::Span,
};

/// What a text is, which decides how it looks.
#[derive(Clone, Copy, Debug)]
pub enum Role {
    /// Nothing special.
    Plain,
    /// A name that leads a line.
    Title,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Somebody's call or question failed.
    Bad,
    /// Explanations, and numbers that are old.
    Faint,
    /// The row that enter opens.
    Marked,
    /// Above a column.
    Header,
    /// Above the column that rows are sorted by.
    Sorted,
}

/// How roles look.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    has_colour: bool,
}

impl Palette {
    /// With colours, or with none at all.
    pub const fn new(has_colour: bool) -> Self {
        Self { has_colour }
    }

    /// No colours where the environment has a `NO_COLOR` that is not empty, see <https://no-color.org>.
    pub fn from_environment() -> Self {
        Self::new(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    /// How this role looks.
    pub fn style(self, role: Role) -> Style {
        // What colour says, the words say as well; without it only weight is left.
        let (modifier, colour) = match role {
            Role::Plain => (Modifier::empty(), None),
            Role::Title | Role::Header => (Modifier::BOLD, None),
            Role::Good => (Modifier::empty(), Some(Color::Green)),
            Role::Warning => (Modifier::empty(), Some(Color::Yellow)),
            Role::Bad => (Modifier::BOLD, Some(Color::Red)),
            Role::Faint => (Modifier::DIM, None),
            Role::Marked => (Modifier::REVERSED, None),
            Role::Sorted => (Modifier::BOLD.union(Modifier::UNDERLINED), Some(Color::Cyan)),
        };
        let style = Style::new().add_modifier(modifier);
        match colour.filter(|_| self.has_colour) {
            Some(colour) => style.fg(colour),
            None => style,
        }
    }

    /// A text of this role.
    pub fn span<'a>(self, role: Role, text: impl Into<Cow<'a, str>>) -> Span<'a> {
        Span::styled(text, self.style(role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 9] = [
        Role::Plain,
        Role::Title,
        Role::Good,
        Role::Warning,
        Role::Bad,
        Role::Faint,
        Role::Marked,
        Role::Header,
        Role::Sorted,
    ];

    #[test]
    fn no_role_has_a_colour_where_none_is_wanted() {
        let coloured = |palette: Palette| ROLES.into_iter().filter(|role| palette.style(*role).fg.is_some()).count();
        assert_eq!(coloured(Palette::new(true)), 4);
        assert_eq!(coloured(Palette::new(false)), 0);
    }
}
