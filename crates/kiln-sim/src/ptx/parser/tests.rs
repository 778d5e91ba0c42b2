use super::super::ast::{Init, Operand, Parameter, Statement};
use super::parse;

const HEAD: &str = ".version 8.4\n.target sm_90a, debug\n.address_size 64\n";

fn body(text: &str) -> Vec<Statement> {
    let module = parse(&format!("{HEAD}.visible .entry k() {{ {text} }}")).unwrap();
    module.functions[0].body.clone().unwrap()
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_head_of_a_module() {
    let module = parse(&format!("{HEAD}.file 1 \"a/b.cu\", 1234, 56\n")).unwrap();
    assert_eq!(module.version, (8, 4));
    assert_eq!(module.target, ["sm_90a", "debug"]);
    assert_eq!(module.files[0].1.as_ref(), "a/b.cu");
}

#[test]
fn variables_with_dimensions_and_values() {
    let module = parse(&format!(
        "{HEAD}.visible .global .align 8 .b8 table[2][3] = {{{{1, 2, 3}}, {{4, -5, 0x6}}}};
         .const .f32 scale = 0f40000000; .global .u64 p[2] = {{generic(table)+4, 0}};
         .extern .shared .align 16 .b8 dynamic[];"
    ))
    .unwrap();
    assert_eq!((module.variables[0].align, module.variables[0].elements), (8, Some(6)));
    assert_eq!(module.variables[0].init[4], Init::Int(-5));
    assert_eq!(module.variables[1].init, [Init::F32(0x4000_0000)]);
    assert_eq!(module.variables[2].init[0], Init::Symbol("table".into(), 4));
    assert!(module.variables[3].external && module.variables[3].elements.is_none());
}

#[test]
fn entries_with_parameters_and_directives() {
    let module = parse(&format!(
        "{HEAD}.visible .entry k(.param .u64 .ptr .global .align 16 a, .param .align 8 .b8 s[24])
         .maxntid 256, 1, 1 .minnctapersm 2 .explicitcluster .reqnctapercluster 2, 1, 1 {{ ret; }}
         .func (.reg .b32 %r) f(.param .b32 x);"
    ))
    .unwrap();
    let k = &module.functions[0];
    assert!(k.entry && k.body.is_some());
    assert_eq!(k.directives[0], ("maxntid".to_string(), vec![256, 1, 1]));
    assert_eq!(k.directives[2], ("explicitcluster".to_string(), vec![]));
    let Parameter::Memory(s) = &k.params[1] else { panic!("{:?}", k.params[1]) };
    assert_eq!((s.align, s.elements), (8, Some(24)));
    assert!(!module.functions[1].entry && module.functions[1].body.is_none());
}

#[test]
fn instructions_and_their_operands() {
    let found =
        body("@!%p1 ld.global.v2.f32 {%f1, _}, [%rd1+-8]; setp.lt.and.s32 %p1|%p2, %r1, -3, !%p3; bra $L;");
    let Statement::Instruction(ld) = &found[0] else { panic!("{found:?}") };
    assert_eq!(ld.guard, Some(("%p1".into(), true)));
    assert_eq!(ld.opcode, ["ld", "global", "v2", "f32"]);
    assert_eq!(ld.operands[0], Operand::Vector(vec![Operand::Name("%f1".into(), 0), Operand::Sink]));
    assert_eq!(ld.operands[1], Operand::Address(Box::new(Operand::Name("%rd1".into(), 0)), -8, vec![]));
    assert_eq!(ld.text.as_ref(), "@!%p1 ld.global.v2.f32 {%f1, _}, [%rd1+-8]");
    let Statement::Instruction(setp) = &found[1] else { panic!("{found:?}") };
    assert!(matches!(setp.operands[0], Operand::Pair(..)) && setp.operands[2] == Operand::Int(-3));
    assert!(matches!(setp.operands[3], Operand::Not(_)));
}

#[test]
fn calls_blocks_tables_and_places() {
    let found = body(
        "{ .reg .b32 t; .param .b32 p0; call.uni (p0), f, (%r1, p0); }
         T: .branchtargets $A, $B; P: .callprototype (.param .b32 _) _ (.param .b64 _); $A: .loc 1 7 3, function_name $S, inlined_at 1 2 3
         mov.u32 %r1, %tid.x; .pragma \"nounroll\";",
    );
    assert!(matches!(found[0], Statement::Open));
    let calls = found.iter().find_map(|s| match s {
        Statement::Instruction(i) if i.opcode[0] == "call" => Some(i.operands.clone()),
        _ => None,
    });
    assert!(matches!(calls.unwrap()[2], Operand::List(ref list) if list.len() == 2));
    assert!(found.iter().any(|s| matches!(s, Statement::Targets(_, t) if t.len() == 2)));
    assert!(found.iter().any(|s| matches!(s, Statement::Location(1, 7))));
    assert!(found.iter().any(|s| matches!(s, Statement::Instruction(i) if i.operands.get(1) == Some(&Operand::Name("%tid.x".into(), 0)))));
}

#[test]
fn debug_sections_are_passed_over() {
    let module =
        parse(&format!("{HEAD}.section .debug_info {{ .b8 1, {{ .b8 2 }} }} .visible .entry k() {{ ret; }}"))
            .unwrap();
    assert_eq!(module.functions.len(), 1);
}

#[test]
fn errors_name_the_line_what_was_expected_and_what_was_found() {
    assert_eq!(
        error(&format!("{HEAD}.visible .entry k() {{\n ld.global.f32 %f1 [%rd1];\n}}")),
        "PTX line 5: expected `,` or `;`, found `[`"
    );
    assert_eq!(error("hello"), "PTX line 1: expected a directive, found `hello`");
    assert_eq!(error(".target sm_90"), "PTX line 1: expected `.version`, found none");
    assert!(error(&format!("{HEAD}.visible .entry k() {{ ret;")).contains("the end of the text"));
    assert!(error(&format!("{HEAD}.global .align 3 .b8 a;")).contains("power of two"));
    assert!(error(&format!("{HEAD}.global .b8 a[99999999999999];")).contains("array"));
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for sign in ["{", "(", "[", "!", "[(", "!["] {
        let text = format!("{HEAD}.visible .entry k() {{ mov.u32 %r1, {}1; }}", sign.repeat(300_000));
        assert!(error(&text).contains("nested"), "{sign}");
    }
}
