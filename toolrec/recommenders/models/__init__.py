"""Networks: the SASRec and BERT4Rec backbones, and the attribute encoders on top of them."""
