"""Can these data be trusted? Leaks, twins, doubtful labels, outliers and shortcuts, from stores."""
