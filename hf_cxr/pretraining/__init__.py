"""Pre-training without labels: masked patches of training images are reconstructed from the patches around them.

Contract of the family: `masks` draws which patches of an image are masked, `loss` measures a reconstruction, `model`
makes the network and `trainer` brings them together as a subclass of `training.trainer.CXRTrainer`. Labels are never
looked at. `run.pretraining` gives them the data of a run; the folder it writes is ``--model_name_or_path`` of one.

Source: Xie, Zhang, Cao, Lin, Bao, Yao, Dai and Hu, "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022
(arXiv 2111.09886).
"""
