"""Contrastive fine-tuning of a visual encoder against frozen audio features (CACE-Net 2024, section 3.4)."""
