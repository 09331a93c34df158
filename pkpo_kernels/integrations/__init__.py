"""Pass@k in the trainers people use: ``pkpo_kernels.integrations.trl`` and ``pkpo_kernels.integrations.verl``. Each is
imported by itself and needs its trainer, which this package does not install."""
