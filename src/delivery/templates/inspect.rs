//! What can be seen in a template without data: the files that it names, its filters and tests.
//!
//! minijinja looks these up while it renders. Here they are found at start, so that a slip is no dead letter later.

use minijinja::machinery::ast::{CallArg, Expr, Stmt};
use minijinja::machinery::{Span, parse};

/// What a template refers to.
#[derive(Debug, Default)]
pub struct Findings {
    pub references: Vec<Reference>,
    /// Name and line.
    pub filters: Vec<(String, usize)>,
    /// Name and line.
    pub tests: Vec<(String, usize)>,
}

/// Another file that is extended, included or imported.
#[derive(Debug)]
pub struct Reference {
    /// `None` when the name is computed.
    pub name: Option<String>,
    pub line: usize,
    /// False for `ignore missing`.
    pub required: bool,
}

/// Reads a template's syntax tree. One that does not parse refers to nothing.
pub fn inspect(text: &str, name: &str) -> Findings {
    let mut findings = Findings::default();
    if let Ok(tree) = parse(text, name, Default::default()) {
        findings.statement(&tree);
    }
    findings
}

fn line(span: Span) -> usize {
    usize::from(span.start_line)
}

impl Findings {
    fn statements(&mut self, list: &[Stmt<'_>]) {
        list.iter().for_each(|statement| self.statement(statement));
    }

    fn expressions<'a>(&mut self, list: impl IntoIterator<Item = &'a Expr<'a>>) {
        list.into_iter().for_each(|expression| self.expression(expression));
    }

    fn statement(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::Template(all) => self.statements(&all.children),
            Stmt::EmitExpr(output) => self.expression(&output.expr),
            Stmt::ForLoop(each) => {
                self.expressions([&each.iter].into_iter().chain(&each.filter_expr));
                self.statements(&each.body);
                self.statements(&each.else_body);
            }
            Stmt::IfCond(choice) => {
                self.expression(&choice.expr);
                self.statements(&choice.true_body);
                self.statements(&choice.false_body);
            }
            Stmt::WithBlock(with) => {
                self.expressions(with.assignments.iter().map(|(_, value)| value));
                self.statements(&with.body);
            }
            Stmt::Set(set) => self.expression(&set.expr),
            Stmt::SetBlock(set) => {
                self.expressions(&set.filter);
                self.statements(&set.body);
            }
            Stmt::AutoEscape(escape) => self.statements(&escape.body),
            Stmt::FilterBlock(filter) => {
                self.expression(&filter.filter);
                self.statements(&filter.body);
            }
            Stmt::Block(block) => self.statements(&block.body),
            Stmt::Import(import) => self.reference(&import.expr, true),
            Stmt::FromImport(import) => self.reference(&import.expr, true),
            Stmt::Extends(extends) => self.reference(&extends.name, true),
            Stmt::Include(include) => self.reference(&include.name, !include.ignore_missing),
            Stmt::Macro(function) => {
                self.expressions(&function.defaults);
                self.statements(&function.body);
            }
            Stmt::CallBlock(block) => {
                self.expression(&block.call.expr);
                self.arguments(&block.call.args);
                self.statements(&block.macro_decl.body);
            }
            Stmt::Do(call) => {
                self.expression(&call.call.expr);
                self.arguments(&call.call.args);
            }
            _ => {}
        }
    }

    fn reference(&mut self, name: &Expr<'_>, required: bool) {
        let constant = name.as_const().and_then(|value| value.as_str().map(str::to_owned));
        self.references.push(Reference { name: constant, line: line(name.span()), required });
    }

    fn expression(&mut self, expression: &Expr<'_>) {
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(slice) => {
                self.expression(&slice.expr);
                self.expressions([&slice.start, &slice.stop, &slice.step].into_iter().flatten());
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => self.expressions([&operation.left, &operation.right]),
            Expr::Compare(chain) => {
                self.expression(&chain.expr);
                self.expressions(chain.ops.iter().map(|operand| &operand.expr));
            }
            Expr::IfExpr(choice) => {
                self.expressions([&choice.test_expr, &choice.true_expr].into_iter().chain(&choice.false_expr));
            }
            Expr::Filter(filter) => {
                self.filters.push((filter.name.to_owned(), line(filter.span())));
                self.expressions(&filter.expr);
                self.arguments(&filter.args);
            }
            Expr::Test(test) => {
                self.tests.push((test.name.to_owned(), line(test.span())));
                self.expression(&test.expr);
                self.arguments(&test.args);
            }
            Expr::GetAttr(get) => self.expression(&get.expr),
            Expr::GetItem(get) => self.expressions([&get.expr, &get.subscript_expr]),
            Expr::Call(call) => {
                self.expression(&call.expr);
                self.arguments(&call.args);
            }
            Expr::List(list) => self.expressions(&list.items),
            Expr::Tuple(tuple) => self.expressions(&tuple.items),
            Expr::Map(map) => {
                self.expressions(&map.keys);
                self.expressions(&map.values);
            }
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) {
        for argument in arguments {
            match argument {
                CallArg::Pos(value)
                | CallArg::Kwarg(_, value)
                | CallArg::PosSplat(value)
                | CallArg::KwargSplat(value) => self.expression(value),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_filters_and_tests_are_found_wherever_they_stand() {
        let text = "{% extends \"layouts/a.html\" %}{# {% include \"comment\" %} #}\n{% block b %}\n\
                    {% if x is defined and y[z | one] %}{% include \"c\" ignore missing %}{% endif %}\n\
                    {% for i in [1, a.b | two(c | three)] if i is odd %}{{ f(k=i | four) }}{% else %}\n\
                    {% from name ~ \"x\" import y %}{% endfor %}{% raw %}{{ x | five }}{% endraw %}{% endblock %}\n\
                    {% call m(x | six) %}{{ {\"k\": v | seven}.k }}{% endcall %}{% filter eight %}{% endfilter %}";
        let found = inspect(text, "t.html");
        let references: Vec<_> = found.references.iter().map(|r| (r.name.as_deref(), r.line, r.required)).collect();
        assert_eq!(references, [(Some("layouts/a.html"), 1, true), (Some("c"), 3, false), (None, 5, true)]);
        let mut filters: Vec<_> = found.filters.iter().map(|(name, line)| (name.as_str(), *line)).collect();
        filters.sort_unstable();
        let expected = [("eight", 6), ("four", 4), ("one", 3), ("seven", 6), ("six", 6), ("three", 4), ("two", 4)];
        assert_eq!(filters, expected);
        let tests: Vec<&str> = found.tests.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(tests, ["defined", "odd"]);
    }
}
