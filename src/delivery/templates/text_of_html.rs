//! Plain text for a mail that has only HTML.

/// Lines are broken at this width, as mail programs expect it.
const WIDTH: usize = 78;

/// The readable text of a page: without what its styles hide, links as footnotes, layout tables as paragraphs.
///
/// # Errors
/// What the parser says, for a page too odd to be laid out.
pub fn text_of_html(html: &str) -> Result<String, String> {
    let config = html2text::config::plain_no_decorate().use_doc_css().raw_mode(true).link_footnotes(true);
    let config = config.allow_width_overflow().empty_img_mode(html2text::config::ImageRenderMode::IgnoreEmpty);
    let text = config.string_from_read(html.as_bytes(), WIDTH).map_err(|e| e.to_string())?;
    Ok(tidy(&text))
}

/// No spaces at ends of lines, no two empty lines in a row, none at the ends.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut empty = 0;
    for line in text.lines().map(str::trim_end) {
        if line.is_empty() {
            empty += 1;
            continue;
        }
        if !tidy.is_empty() {
            tidy.push_str(if empty > 0 { "\n\n" } else { "\n" });
        }
        empty = 0;
        tidy.push_str(line);
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_remain_and_markup_does_not() {
        let html = r#"<!DOCTYPE html><html><head><title>Title</title><style>.x { display: none }</style></head><body>
            <div style="display: none">preview</div><p class="x">hidden</p>
            <table role="presentation"><tr><td><h1>Hello &amp; welcome</h1><p>One <b>bold</b> &lt;word&gt;.</p>
            <p>See <a href="https://shop.example/o/1">your order</a>.</p></td></tr></table></body></html>"#;
        let text = text_of_html(html).expect("text");
        for word in ["Hello & welcome", "One bold <word>.", "your order", "https://shop.example/o/1"] {
            assert!(text.contains(word), "{word} in:\n{text}");
        }
        for word in ["Title", "preview", "hidden", "<b>", "&amp;", "─", "\n\n\n"] {
            assert!(!text.contains(word), "{word} in:\n{text}");
        }
    }

    #[test]
    fn odd_pages_give_some_text() {
        let nested = format!("{}deep{}", "<div>".repeat(3000), "</div>".repeat(3000));
        let long = "x".repeat(100_000);
        for html in ["", "<p", "plain", "<table><tr><td rowspan=0>a<td colspan=99999>b", nested.as_str(), long.as_str()]
        {
            text_of_html(html).unwrap_or_else(|e| panic!("{}: {e}", &html[..html.len().min(60)]));
        }
        assert!(text_of_html(&long).expect("text").contains("xxx"));
    }
}
