"""Speed, measured side by side in one run and stated as ratios."""
