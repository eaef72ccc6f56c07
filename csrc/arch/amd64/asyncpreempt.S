/* asyncpreempt.S (amd64) - where a preempted native goroutine finds itself: a call that it did not make.
 *
 * The handler of SIGURG has skipped the red zone (128 bytes), pushed the interrupted address, and pointed rip
 * here (inject.c).  Everything that the interrupted code may have in use is saved: flags, general registers, the
 * vector and x87 state (XSAVE, compacted where the CPU can).  preempt_yield does; the goroutine may come
 * back on another thread.  `ret $128` pops the address and the red zone. */
    .text
    .p2align 4
    .globl gm_async_preempt
    .hidden gm_async_preempt
    .type gm_async_preempt, @function
gm_async_preempt:
    .cfi_startproc
    .cfi_signal_frame
    endbr64
    pushfq
    .cfi_adjust_cfa_offset 8
    cld
    pushq %rax
    .cfi_adjust_cfa_offset 8
    pushq %rcx
    .cfi_adjust_cfa_offset 8
    pushq %rdx
    .cfi_adjust_cfa_offset 8
    pushq %rsi
    .cfi_adjust_cfa_offset 8
    pushq %rdi
    .cfi_adjust_cfa_offset 8
    pushq %r8
    .cfi_adjust_cfa_offset 8
    pushq %r9
    .cfi_adjust_cfa_offset 8
    pushq %r10
    .cfi_adjust_cfa_offset 8
    pushq %r11
    .cfi_adjust_cfa_offset 8
    pushq %rbx                  /* rbx, r12-r15: kept by the call below */
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    subq preempt_xsize(%rip), %rsp
    andq $-64, %rsp
    xorl %eax, %eax             /* XSAVE leaves most of the header as it is, XRSTOR wants zeros */
    leaq 512(%rsp), %rdi
    movl $8, %ecx
    rep stosq
    movl preempt_xmask(%rip), %eax
    movl preempt_xmask+4(%rip), %edx
    cmpb $0, preempt_xsavec(%rip)
    je 1f
    xsavec64 (%rsp)
    jmp 2f
1:  xsave64 (%rsp)
2:  call *preempt_yield(%rip)
    movl preempt_xmask(%rip), %eax
    movl preempt_xmask+4(%rip), %edx
    xrstor64 (%rsp)
    movq %rbp, %rsp
    .cfi_def_cfa_register %rsp
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %r11
    .cfi_adjust_cfa_offset -8
    popq %r10
    .cfi_adjust_cfa_offset -8
    popq %r9
    .cfi_adjust_cfa_offset -8
    popq %r8
    .cfi_adjust_cfa_offset -8
    popq %rdi
    .cfi_adjust_cfa_offset -8
    popq %rsi
    .cfi_adjust_cfa_offset -8
    popq %rdx
    .cfi_adjust_cfa_offset -8
    popq %rcx
    .cfi_adjust_cfa_offset -8
    popq %rax
    .cfi_adjust_cfa_offset -8
    popfq
    .cfi_adjust_cfa_offset -8
    ret $128
    .cfi_endproc
    .size gm_async_preempt, .-gm_async_preempt

    .section .note.GNU-stack,"",@progbits
