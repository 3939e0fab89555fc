// The whole public interface.
#pragma once

<<<<<<< HEAD
#include "zebra/cache.h"
#include "zebra/cached_attention.h"
=======
#include "zebra/chat_template.h"
>>>>>>> tok
#include "zebra/checkpoint.h"
#include "zebra/convert.h"
#include "zebra/dataset.h"
#include "zebra/error.h"
#include "zebra/eval.h"
#include "zebra/generate.h"
#include "zebra/init.h"
#include "zebra/layers.h"
#include "zebra/losses.h"
#include "zebra/mixers.h"
#include "zebra/model.h"
#include "zebra/ops.h"
#include "zebra/options.h"
#include "zebra/recipe.h"
#include "zebra/safetensors.h"
#include "zebra/tokenizer.h"
#include "zebra/trainer.h"
