"""What the kernel offers: semaphores, locks, processes, clocks, memory."""
