//! Takes a parsed template apart and puts it together again, with filters of ours wherever a template can make text or
//! lists: `a ~ b` becomes `a|~(b)`, what a filter, a call or a slice gives goes through `#`, and literal text is printed
//! like any other. The names of these filters are no names in the language, so no template can reach or replace them.
//!
//! Why: the engine counts instructions but not what they make, and one instruction can double a text. See `meter`.

use minijinja::Value;
use minijinja::machinery::Span;
use minijinja::machinery::ast::*;

/// The filters that the rebuilt template calls.
pub(super) const ADD: &str = "+";
pub(super) const REPEAT: &str = "*";
pub(super) const JOIN: &str = "~";
pub(super) const COUNT: &str = "#";

/// A statement that chat templates do not have: those that read other templates.
#[derive(Debug)]
pub(super) struct Foreign {
    pub line: usize,
}

type Result<T, E = Foreign> = std::result::Result<T, E>;

pub(super) fn statement<'a>(stmt: &Stmt<'a>) -> Result<Stmt<'a>> {
    Ok(match stmt {
        Stmt::Template(node) => Stmt::Template(again(node, Template { children: list(&node.children)? })),
        Stmt::EmitExpr(node) => Stmt::EmitExpr(again(node, EmitExpr { expr: emitted(&node.expr) })),
        Stmt::EmitRaw(node) => {
            let value = Value::from(node.raw);
            let expr = Expr::Const(again(node, Const { value }));
            Stmt::EmitExpr(again(node, EmitExpr { expr }))
        }
        Stmt::ForLoop(node) => Stmt::ForLoop(again(node, for_loop(node)?)),
        Stmt::IfCond(node) => {
            let (true_body, false_body) = (list(&node.true_body)?, list(&node.false_body)?);
            Stmt::IfCond(again(node, IfCond { expr: expr(&node.expr), true_body, false_body }))
        }
        Stmt::WithBlock(node) => {
            let assign = |(target, value): &(Expr<'a>, Expr<'a>)| (expr(target), expr(value));
            let assignments = node.assignments.iter().map(assign).collect();
            Stmt::WithBlock(again(node, WithBlock { assignments, body: list(&node.body)? }))
        }
        Stmt::Set(node) => Stmt::Set(again(node, Set { target: expr(&node.target), expr: expr(&node.expr) })),
        Stmt::SetBlock(node) => {
            let (target, filter) = (expr(&node.target), node.filter.as_ref().map(expr));
            Stmt::SetBlock(again(node, SetBlock { target, filter, body: list(&node.body)? }))
        }
        Stmt::AutoEscape(node) => Stmt::AutoEscape(again(
            node,
            AutoEscape { enabled: expr(&node.enabled), body: list(&node.body)? },
        )),
        Stmt::FilterBlock(node) => Stmt::FilterBlock(again(
            node,
            FilterBlock { filter: expr(&node.filter), body: list(&node.body)? },
        )),
        Stmt::Macro(node) => Stmt::Macro(macro_of(node)?),
        Stmt::CallBlock(node) => {
            let (call, macro_decl) = (again(&node.call, call(&node.call)), macro_of(&node.macro_decl)?);
            Stmt::CallBlock(again(node, CallBlock { call, macro_decl }))
        }
        Stmt::Continue(node) => Stmt::Continue(again(node, Continue)),
        Stmt::Break(node) => Stmt::Break(again(node, Break)),
        Stmt::Do(node) => Stmt::Do(again(node, Do { call: again(&node.call, call(&node.call)) })),
        Stmt::Block(node) => return Err(foreign(node.span())),
        Stmt::Import(node) => return Err(foreign(node.span())),
        Stmt::FromImport(node) => return Err(foreign(node.span())),
        Stmt::Extends(node) => return Err(foreign(node.span())),
        Stmt::Include(node) => return Err(foreign(node.span())),
    })
}

fn list<'a>(body: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>> {
    body.iter().map(statement).collect()
}

fn foreign(span: Span) -> Foreign {
    Foreign { line: span.start_line as usize }
}

/// `node` in the place where `old` was.
fn again<T, U>(old: &Spanned<U>, node: T) -> Spanned<T> {
    Spanned::new(node, old.span())
}

fn for_loop<'a>(node: &ForLoop<'a>) -> Result<ForLoop<'a>> {
    Ok(ForLoop {
        target: expr(&node.target),
        iter: expr(&node.iter),
        filter_expr: node.filter_expr.as_ref().map(expr),
        recursive: node.recursive,
        body: list(&node.body)?,
        else_body: list(&node.else_body)?,
    })
}

fn macro_of<'a>(node: &Spanned<Macro<'a>>) -> Result<Spanned<Macro<'a>>> {
    let (args, defaults) = (exprs(&node.args), exprs(&node.defaults));
    Ok(again(node, Macro { name: node.name, args, defaults, body: list(&node.body)? }))
}

/// What is printed is counted when it is printed; and a call of `loop` is known by standing here alone.
fn emitted<'a>(printed: &Expr<'a>) -> Expr<'a> {
    match printed {
        Expr::Call(node) => Expr::Call(again(node, call(node))),
        other => expr(other),
    }
}

fn exprs<'a>(items: &[Expr<'a>]) -> Vec<Expr<'a>> {
    items.iter().map(expr).collect()
}

fn expr<'a>(old: &Expr<'a>) -> Expr<'a> {
    match old {
        Expr::Var(node) => Expr::Var(again(node, Var { id: node.id })),
        Expr::Const(node) => Expr::Const(again(node, Const { value: node.value.clone() })),
        Expr::Slice(node) => {
            let part = |part: &Option<Expr<'a>>| part.as_ref().map(expr);
            let (start, stop, step) = (part(&node.start), part(&node.stop), part(&node.step));
            counted(Expr::Slice(again(node, Slice { expr: expr(&node.expr), start, stop, step })))
        }
        Expr::UnaryOp(node) => {
            let is_not = matches!(node.op, UnaryOpKind::Not);
            let op = if is_not { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            Expr::UnaryOp(again(node, UnaryOp { op, expr: expr(&node.expr) }))
        }
        Expr::BinOp(node) => binary(node),
        Expr::Compare(node) => {
            let ops = node.ops.iter().map(|one| CompareOp { op: one.op, expr: expr(&one.expr) }).collect();
            Expr::Compare(again(node, Compare { expr: expr(&node.expr), ops }))
        }
        Expr::IfExpr(node) => {
            let (test_expr, true_expr) = (expr(&node.test_expr), expr(&node.true_expr));
            let false_expr = node.false_expr.as_ref().map(expr);
            Expr::IfExpr(again(node, IfExpr { test_expr, true_expr, false_expr }))
        }
        Expr::Filter(node) => {
            let (value, args) = (node.expr.as_ref().map(expr), arguments(&node.args));
            // Without a value it is the filter of a block, whose text was counted when it was printed.
            let is_of_block = value.is_none();
            let filter = Expr::Filter(again(node, Filter { name: node.name, expr: value, args }));
            if is_of_block { filter } else { counted(filter) }
        }
        Expr::Test(node) => {
            let args = arguments(&node.args);
            Expr::Test(again(node, Test { name: node.name, expr: expr(&node.expr), args }))
        }
        Expr::GetAttr(node) => {
            Expr::GetAttr(again(node, GetAttr { expr: expr(&node.expr), name: node.name }))
        }
        Expr::GetItem(node) => {
            let subscript_expr = expr(&node.subscript_expr);
            Expr::GetItem(again(node, GetItem { expr: expr(&node.expr), subscript_expr }))
        }
        Expr::Call(node) => counted(Expr::Call(again(node, call(node)))),
        Expr::List(node) => Expr::List(again(node, List { items: exprs(&node.items) })),
        Expr::Tuple(node) => Expr::Tuple(again(node, Tuple { items: exprs(&node.items) })),
        Expr::Map(node) => {
            Expr::Map(again(node, Map { keys: exprs(&node.keys), values: exprs(&node.values) }))
        }
    }
}

fn binary<'a>(node: &Spanned<BinOp<'a>>) -> Expr<'a> {
    let (left, right) = (expr(&node.left), expr(&node.right));
    let name = match node.op {
        BinOpKind::Add => ADD,
        BinOpKind::Mul => REPEAT,
        BinOpKind::Concat => JOIN,
        op => return Expr::BinOp(again(node, BinOp { op, left, right })),
    };
    Expr::Filter(again(node, Filter { name, expr: Some(left), args: vec![CallArg::Pos(right)] }))
}

fn call<'a>(node: &Call<'a>) -> Call<'a> {
    // A method belongs to what it is called on; nothing may come between them.
    Call { expr: expr(&node.expr), args: arguments(&node.args) }
}

fn arguments<'a>(args: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    let again = |arg: &CallArg<'a>| match arg {
        CallArg::Pos(value) => CallArg::Pos(expr(value)),
        CallArg::Kwarg(name, value) => CallArg::Kwarg(name, expr(value)),
        CallArg::PosSplat(value) => CallArg::PosSplat(expr(value)),
        CallArg::KwargSplat(value) => CallArg::KwargSplat(expr(value)),
    };
    args.iter().map(again).collect()
}

fn counted<'a>(value: Expr<'a>) -> Expr<'a> {
    let span = value.span();
    Expr::Filter(Spanned::new(Filter { name: COUNT, expr: Some(value), args: Vec::new() }, span))
}
