//! What users of templates rely on.

mod broken;
mod hostile;
mod locales;
mod versions;
mod words;

use std::path::Path;

use serde_json::value::RawValue;

use super::*;

/// Each built-in template with all variables that its events can give it.
const FULL: [(&str, &str); 7] = [
    ("order_confirmation", r#"{"orderId":"4711","amount":1234.5,"currency":"EUR","orderDate":"2026-01-15T23:30:00Z"}"#),
    ("payment_confirmation", r#"{"orderId":"4711","paymentMethod":"credit_card","paidAt":"2026-01-15T10:30:00Z"}"#),
    ("order_shipped", r#"{"orderId":"4711","trackingNumber":"JD01","carrier":"DHL","estimatedDelivery":"2026-01-20"}"#),
    ("order_cancelled", r#"{"orderId":"4711","reason":"wrong size","refundAmount":99.50}"#),
    ("payment_failed", r#"{"orderId":"4711","reason":"card declined"}"#),
    ("welcome", r#"{"firstName":"Ada","email":"a@b.example","registeredAt":"2026-01-15T10:30:00Z"}"#),
    ("product_out_of_stock", r#"{"productId":"p-1","productName":"Lamp","outOfStockAt":"2026-01-15T10:30:00Z"}"#),
];

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).expect("JSON")
}

fn built_in() -> Templates {
    Templates::built_in().unwrap_or_else(|errors| panic!("{errors}"))
}

fn render_for(
    templates: &Templates,
    template: &str,
    channel: Channel,
    locale: Option<&str>,
    data: &str,
) -> Result<Rendered, RenderError> {
    let data = json(data);
    let time_zone = Some("Europe/Berlin");
    templates.render(&RenderRequest { template, channel, locale, time_zone, data: &data, unsubscribe_url: None })
}

/// A folder of templates.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        files.iter().for_each(|(path, text)| folder.write(path, text));
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }

    fn load(&self) -> Templates {
        self.load_with("en")
    }

    #[track_caller]
    fn load_with(&self, default_locale: &str) -> Templates {
        Templates::load(Some(self.path()), default_locale).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The mistakes, one a line.
    #[track_caller]
    fn mistakes(&self) -> String {
        Templates::load(Some(self.path()), "en").err().expect("mistakes").to_string()
    }
}
