"""The SYSU-MM01 data set: four visible and two near-infrared cameras."""
