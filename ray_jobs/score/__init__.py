"""Score images: fetch and crop, answer, judge, over Ray Data."""
