/* switch.S (amd64) - leave one stack, enter another.  Contract in arch/arch.h.
 *
 * Saved frame, from the saved sp upwards: control words, r15 r14 r13 r12 rbx rbp, resume address.
 * `pop; jmp` and not `ret`: the return predictor knows nothing of stacks that change under it, and with
 * a thousand goroutines at different call sites each `ret` would be mispredicted (12 ns).
 * All callee-saved registers are pushed below the frame that the CFI describes, so gdb unwinds a
 * goroutine in gm_switch like any other frame. */
    .text
    .p2align 4
    .globl gm_switch
    .hidden gm_switch
    .type gm_switch, @function
gm_switch:
    .cfi_startproc
    endbr64
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    subq $8, %rsp
    .cfi_adjust_cfa_offset 8
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
    movl (%rsp), %eax
    movzwl 4(%rsp), %edx
    movq %rsp, (%rdi)
    movq %rsi, %rsp             /* the other stack: same frame, so the CFI above still holds */
    xorl (%rsp), %eax
    testl $0xffc0, %eax         /* control bits only: sticky flags may differ */
    jne .Lmxcsr
.Lfcw_check:
    cmpw 4(%rsp), %dx
    jne .Lfcw
.Lpop:
    addq $8, %rsp
    .cfi_adjust_cfa_offset -8
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    popq %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    jmpq *%rcx
.Lmxcsr:
    ldmxcsr (%rsp)
    jmp .Lfcw_check
.Lfcw:
    fldcw 4(%rsp)
    jmp .Lpop
    .cfi_endproc
    .size gm_switch, .-gm_switch

    .p2align 4
    .globl gm_entry
    .hidden gm_entry
    .type gm_entry, @function
gm_entry:
    .cfi_startproc
    .cfi_undefined %rip         /* the outermost frame: unwinders stop here */
    endbr64
    movq %rbx, %rdi
    call *%r12
    ud2                         /* it never returns */
    .cfi_endproc
    .size gm_entry, .-gm_entry

    .section .note.GNU-stack,"",@progbits
