"""Chat rows: conversations about images as ms-swift, ShareGPT and LLaVA write them, with their boxes."""
