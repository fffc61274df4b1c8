"""What graded samples say: curves, forecasts, what to buy, when another sample is worth its price."""
