"""The three maps in Triton: a file for each map, and the functions they share.

All of them follow these rules:

* no patches in memory and no atomics: each element is written once, by the program that owns it;
* nothing depends on how many programs run at a time, so the same call gives the same bits;
* sizes, steps and the batch are run-time arguments, so one compilation serves a layer whatever
  its input; channels, filters and the number of terms are known to the compiler.

Names: ``x (N, *I, C)``, ``w (*O, *K, C, F)``, ``y (N, *O, F)`` with ``C`` and ``F`` those of one
group, ``T = prod(K) * C`` terms of one output. ``S`` strides, ``D`` dilation, ``L`` low padding.
``XS``, ``YS`` and ``WS`` are steps in memory, in elements, along each axis of ``x``, ``y`` and
the positions of ``w`` (0 where the kernel is shared); ``xn``, ``xc``, ``yn``, ``yf`` those along
samples and channels. Tuples have one entry for each of up to four axes; ``ND`` says how many count.
"""
