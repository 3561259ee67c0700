"""The LLCM data set: nine cameras, each visible by day and near-infrared by night."""
